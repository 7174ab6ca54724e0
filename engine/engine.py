"""One model on one device: its lifecycle.

All that is costly to make is made once (``engine.model``) and survives sleep; waking copies bytes, sleeping
releases them. Threads: the coroutines run on the loop, steps (``engine.stepping``) and every release of
memory on the device's worker, reads from disk beside it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from array import array
from collections.abc import AsyncGenerator
from collections.abc import Sequence as SequenceOf
from contextlib import suppress
from functools import partial
from pathlib import Path

from engine.checkpoint import Checkpoint
from engine.devices import get_device
from engine.downloading import with_weights
from engine.embedding.model import EmbeddingModel, build_embedding_model
from engine.embedding.request import EmbedRequest, check_inputs
from engine.embedding.stepper import EmbeddingStepper
from engine.grammar import GrammarCompiler
from engine.hub import fetch_small_files, local_directory
from engine.info import describe, estimate_checkpoint, read_config, stop_token_ids
from engine.memory.cpu import trim_allocator
from engine.model import Model, build_model, make_layout
from engine.models.encoder_config import EncoderConfig
from engine.request import check_request, within_reach
from engine.sequence import Sequence
from engine.stepping import GenerationStepper
from engine.stream import DeltaStream
from engine.tokenizer import Side, Tokenizer
from engine.types import (
    ALL_TAGS,
    CheckpointError,
    Constraint,
    Delta,
    EngineError,
    EngineOptions,
    Footprint,
    GenerateRequest,
    Grammar,
    Level,
    ModelInfo,
    Progress,
    Tag,
    TransitionReport,
)
from engine.weights import Weights

AnyModel = Model | EmbeddingModel

log = logging.getLogger("dormouse.engine")


class TorchEngine:
    """See ``engine.protocol.Engine``."""

    def __init__(self, path: str, device: str, options: EngineOptions) -> None:
        self._path = path
        self._options = options
        self._device = get_device(device)
        self._device.limit_memory(options.device_limit, options.host_limit)
        self._from_hub = local_directory(path) is None
        directory = local_directory(path) or fetch_small_files(path, options.revision)
        self._checkpoint = Checkpoint(directory)
        self._config = read_config(self._checkpoint)
        self._tokenizer = Tokenizer(self._checkpoint.tokenizer_file)
        if self._config.sentence and self._config.sentence.lowercase:
            self._tokenizer.lowercase()
        self._eos = stop_token_ids(self._checkpoint, self._tokenizer, self._config.vocab_size)
        widest = max(self._config.vocab_size, self._tokenizer.size)
        self._grammars = GrammarCompiler(self._tokenizer.to_json, widest, self._eos)
        self.info: ModelInfo = describe(self._checkpoint, self._config, self._tokenizer, options)
        self._cold_bytes = _least_bytes(directory, options, self._device.page)
        self._model: AnyModel | None = None
        self._kv_ready = False
        self._stepper: GenerationStepper | EmbeddingStepper | None = None
        self._progress: Progress | None = None
        self._went_on = asyncio.Event()
        self._went_on.set()

    # What needs no weights.

    @property
    def _awake(self) -> bool:
        return self._kv_ready and self._model is not None and self._model.weights.resident

    @property
    def last_step_at(self) -> float | None:
        return self._stepper.clock.last_step_at if self._stepper else None

    def encode(self, text: str, *, add_special_tokens: bool = True, most: int | None = None) -> list[int]:
        if most is None:
            return self._tokenizer.encode(text, add_special_tokens=add_special_tokens)
        keep: Side = "end" if self.info.kind == "generate" else "start"
        return self._tokenizer.encode_part(text, most, keep, add_special_tokens=add_special_tokens)

    def decode(self, token_ids: SequenceOf[int], *, skip_special_tokens: bool = True) -> str:
        return self._tokenizer.decode(token_ids, skip_special_tokens=skip_special_tokens)

    def token_bytes(self, token_id: int) -> bytes:
        return self._tokenizer.token_bytes(token_id)

    def token(self, token_id: int) -> str:
        return self._tokenizer.token(token_id)

    def compile(self, constraint: Constraint) -> Grammar:
        return self._grammars.compile(constraint)

    def fault(self) -> str | None:
        if self._stepper is None:
            return None
        if self._stepper.failure:
            return f"the engine broke down: {self._stepper.failure}"
        stuck = self._stepper.clock.stuck()
        return None if stuck is None else f"a step has been running for {stuck:.0f} s"

    def progress(self) -> Progress | None:
        model = self._model
        if self._progress and self._progress.phase == "weights" and model:
            return Progress(phase="weights", done=model.weights.held, total=self._progress.total)
        return self._progress

    def footprint(self) -> Footprint:
        model = self._model
        if model is None:
            return Footprint(to_wake=self._cold_bytes)
        weights = model.weights.held
        return Footprint(
            weights=weights,
            packed=model.weights.packed,
            kv=model.kv.committed,
            kept=model.kv.kept,
            host_copy=model.weights.parked(asleep=not self._kv_ready),
            residue=model.residue,
            to_wake=model.weights.nbytes - weights + model.kv.to_reserve,
        )

    # The lifecycle, on the loop.

    async def load(self) -> None:
        if self._model is None:
            try:
                await self._device.beside_steps(self._build)
            finally:
                self._progress = None

    async def wake(self, tags: frozenset[Tag] = ALL_TAGS) -> TransitionReport:
        await self.load()
        model = self._loaded()
        started, phases, filled = time.perf_counter(), {}, 0
        if "kv_cache" in tags:
            await self._device.between_steps(model.kv.reserve)
            phases["kv_cache"] = time.perf_counter() - started
        if "weights" in tags and not model.weights.resident:
            filled = await self._fill(model)
            phases["weights"] = time.perf_counter() - started - phases.get("kv_cache", 0.0)
        self._kv_ready = self._kv_ready or "kv_cache" in tags
        self._device.notify()
        return TransitionReport(seconds=time.perf_counter() - started, bytes=filled, phases=phases)

    async def _fill(self, model: AnyModel) -> int:
        """Bytes read. A failure gives back the KV that the wake took before."""
        self._progress = Progress(phase="weights", done=0, total=model.weights.nbytes)
        try:
            await self._device.beside_steps(model.weights.fill)
        except BaseException:
            if not self._kv_ready:
                await self._device.between_steps(model.kv.trim)
            raise
        finally:
            self._progress = None
        return model.weights.done

    async def sleep(self, level: Level) -> TransitionReport:
        started = time.perf_counter()
        self._kv_ready = False
        freed, model = 0, self._model
        if model is not None:
            if level == 1 and not model.weights.in_ram:
                await self._device.beside_steps(partial(_keep, model.weights))
            try:
                freed = await self._device.between_steps(lambda: self._release(level))
            finally:
                if level == 2 and not model.weights.in_ram:
                    await self._device.beside_steps(model.weights.forget)
        return TransitionReport(seconds=time.perf_counter() - started, bytes=freed)

    async def suspend(self, *, keep_kv: bool) -> None:
        stepper = self._stepper
        if stepper and not stepper.failure:
            await self._device.between_steps(lambda: stepper.suspend(keep_kv=keep_kv))

    async def resume(self) -> None:
        if self._stepper and self._stepper.suspended:
            stepper, self._went_on = self._awake_stepper(), asyncio.Event()
            tell = partial(_set, asyncio.get_running_loop(), self._went_on)
            await self._device.between_steps(lambda: stepper.resume(tell))
            self._device.notify()

    async def went_on(self) -> None:
        await self._went_on.wait()

    async def reset_prefix_cache(self) -> None:
        if self._model is not None:
            await self._device.between_steps(self._model.kv.forget_prefixes)

    async def trim_kv(self) -> int:
        model = self._model
        return 0 if model is None else await self._device.between_steps(model.kv.trim)

    async def trim_copy(self) -> int:
        model = self._model
        return 0 if model is None else await self._device.beside_steps(model.weights.trim_copy)

    async def reload_weights(self) -> None:
        model = self._loaded()
        resident = model.weights.resident

        def adopt() -> None:
            checkpoint = Checkpoint(self._checkpoint.directory)
            model.weights.adopt(make_layout(checkpoint, read_config(checkpoint), self._options))

        try:
            await self._device.beside_steps(adopt)
        except BaseException:
            if resident and not model.weights.resident:
                await self.sleep(2)
            raise
        await self._device.between_steps(lambda: self._end_all("the model's weights were replaced"))
        await self.reset_prefix_cache()  # what it holds is of the old weights
        self._device.notify()

    async def close(self) -> None:
        if self._model is not None:
            await self.sleep(2)
            model, self._model = self._model, None
            await self._device.between_steps(lambda: self._unload(model))

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[list[Delta]]:
        check_request(self.info, request)
        stepper = self._awake_stepper()
        assert isinstance(stepper, GenerationStepper)
        stream, left = DeltaStream(request.read_ahead // request.n), request.n
        stepper.submit(Sequence.of(within_reach(self.info, request), self._tokenizer, self._eos, stream))
        self._device.notify()
        try:
            while left:
                deltas = await stream.next()
                if stream.caught_up:
                    self._device.notify()
                yield deltas
                left -= sum(delta.finish_reason is not None for delta in deltas)
        finally:
            stream.aborted = True
            self._device.notify()

    async def embed(
        self, inputs: SequenceOf[SequenceOf[int]], dimensions: int | None = None
    ) -> list[array[float]]:
        check_inputs(self.info, inputs, dimensions)
        if not inputs:
            return []
        stepper = self._awake_stepper()
        assert isinstance(stepper, EmbeddingStepper)
        request = EmbedRequest(inputs, dimensions)
        stepper.submit(request)
        self._device.notify()
        try:
            return await request.answer
        finally:
            request.aborted = True
            self._device.notify()

    # On the device's worker.

    def _release(self, level: Level) -> int:
        """Bytes given back."""
        model = self._loaded()
        if self._stepper and not self._stepper.suspended:
            self._end_all("the model was put to sleep")
        freed = model.kv.trim()
        if model.weights.resident and (level == 2 or not model.weights.in_ram):
            freed += model.weights.nbytes
        if level == 2 or not model.weights.in_ram:
            model.weights.release()
        trim_allocator()
        return freed

    def _end_all(self, reason: str) -> None:
        if self._stepper:
            self._stepper.end_all(reason)

    def _unload(self, model: AnyModel) -> None:
        self._end_all("the model was closed")
        if self._stepper:
            self._device.remove(self._stepper)
        self._device.chores.remove(model.weights.pack_next)
        model.kv.leave()
        for arena in model.arenas:
            arena.close()

    def _build(self) -> None:
        if self._from_hub:
            # The same commit as the small files, whatever the branch has become since.
            directory = with_weights(self._path, self._checkpoint.directory, self._on_bytes)
            self._checkpoint = Checkpoint(directory)
        config = self._config
        if config.sentence or isinstance(config, EncoderConfig):
            embedding = build_embedding_model(self._checkpoint, config, self._options, self._device)
            self._model, self._stepper = embedding, EmbeddingStepper(embedding)
        else:
            model = build_model(self._checkpoint, config, self._options, self._device)
            stepper = GenerationStepper(model, lambda: self._device.others_wait(stepper))
            self._model, self._stepper = model, stepper
        self._device.add(self._stepper)
        self._device.chores.append(self._model.weights.pack_next)

    def _on_bytes(self, done: int, total: int) -> None:
        self._progress = Progress(phase="download", done=done, total=total)

    def _awake_stepper(self) -> GenerationStepper | EmbeddingStepper:
        if self._stepper is None or not self._awake:
            raise EngineError("the model is not awake")
        if self._stepper.failure:
            raise EngineError("the engine broke down")
        return self._stepper

    def _loaded(self) -> AnyModel:
        if self._model is None:
            raise EngineError("the model is not loaded")
        return self._model


def _keep(weights: Weights) -> None:
    try:
        weights.keep()
    except EngineError as error:
        log.warning("a light sleep becomes a deep one: %s", error)


def _set(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    """From another thread."""
    with suppress(RuntimeError):  # the loop has been closed: nobody waits any more
        loop.call_soon_threadsafe(event.set)


def _least_bytes(directory: Path, options: EngineOptions, page: int) -> int:
    """What a model needs that was never loaded; 0 while its files are not here."""
    try:
        estimate = estimate_checkpoint(str(directory), options, page)
    except CheckpointError:
        return 0
    return estimate.least_bytes if estimate else 0
