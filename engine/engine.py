"""One model on one device: its lifecycle and its step.

All that is costly to make is made once (``engine.model``) and survives sleep; waking copies bytes, sleeping
releases them. Threads: the coroutines run on the loop, ``step`` and every release of memory on the device's
worker, reads from disk beside it.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import AsyncGenerator
from collections.abc import Sequence as SequenceOf
from dataclasses import replace
from pathlib import Path

from engine.checkpoint import Checkpoint
from engine.device import StepClock, get_device
from engine.hub import fetch_small_files, fetch_weights, local_directory
from engine.info import describe, estimate_checkpoint, stop_token_ids
from engine.memory.cpu import trim_allocator
from engine.model import Model, build_model, make_layout
from engine.models.config import ModelConfig
from engine.scheduler import Scheduled
from engine.sequence import Sequence
from engine.tokenizer import Tokenizer
from engine.types import (
    ALL_TAGS,
    CheckpointError,
    Delta,
    EngineError,
    EngineOptions,
    Footprint,
    GenerateRequest,
    Level,
    ModelInfo,
    OutOfMemory,
    Progress,
    RequestError,
    Tag,
    TransitionReport,
)

log = logging.getLogger("dormouse.engine")


class TorchEngine:
    """See ``engine.types.Engine``."""

    def __init__(self, path: str, device: str, options: EngineOptions) -> None:
        self._path = path
        self._options = options
        self._device = get_device(device)
        self._device.budget.limit = options.device_limit
        self._from_hub = local_directory(path) is None
        directory = local_directory(path) or fetch_small_files(path, options.revision)
        self._checkpoint = Checkpoint(directory)
        self._config = ModelConfig.parse(self._checkpoint.config)
        self._tokenizer = Tokenizer(self._checkpoint.tokenizer_file)
        self._eos = stop_token_ids(self._checkpoint, self._tokenizer, self._config.vocab_size)
        self.info: ModelInfo = describe(self._checkpoint, self._config, self._tokenizer, options)
        self._cold_bytes = _estimated_weights(directory, options)
        self._model: Model | None = None
        self._kv_ready = False
        self._inbox: deque[Sequence] = deque()
        self._clock = StepClock()
        self._failure: Exception | None = None
        self._progress: Progress | None = None

    # What needs no weights.

    @property
    def last_step_at(self) -> float | None:
        return self._clock.last_step_at

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=add_special_tokens)

    def decode(self, token_ids: SequenceOf[int], *, skip_special_tokens: bool = True) -> str:
        return self._tokenizer.decode(token_ids, skip_special_tokens=skip_special_tokens)

    def fault(self) -> str | None:
        if self._failure:
            return f"the engine broke down: {self._failure}"
        stuck = self._clock.stuck()
        return None if stuck is None else f"a step has been running for {stuck:.0f} s"

    def progress(self) -> Progress | None:
        model = self._model
        if self._progress and self._progress.phase == "weights" and model:
            return Progress(phase="weights", done=model.weights.done, total=self._progress.total)
        return self._progress

    def footprint(self) -> Footprint:
        model = self._model
        if model is None:
            return Footprint(to_wake=self._cold_bytes)
        resident = model.weights.resident
        weights = model.weights.nbytes if resident else 0
        to_wake = model.weights.nbytes - weights
        return Footprint(
            weights=weights,
            kv=model.kv.committed,
            host_copy=0 if self._kv_ready else weights,
            residue=model.residue,
            to_wake=to_wake + (0 if model.kv.committed else model.kv.chunk_bytes),
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
        return TransitionReport(seconds=time.perf_counter() - started, bytes=filled, phases=phases)

    async def _fill(self, model: Model) -> int:
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
        freed = 0
        if self._model is not None:
            freed = await self._device.between_steps(lambda: self._release(level))
        return TransitionReport(seconds=time.perf_counter() - started, bytes=freed)

    async def trim_kv(self) -> int:
        model = self._model
        return 0 if model is None else await self._device.between_steps(model.kv.trim)

    async def reload_weights(self) -> None:
        model = self._loaded()

        def adopt() -> None:
            checkpoint = Checkpoint(self._checkpoint.directory)
            config = ModelConfig.parse(checkpoint.config)
            model.weights.adopt(make_layout(checkpoint, config, self._options))

        await self._device.beside_steps(adopt)

    async def close(self) -> None:
        if self._model is not None:
            await self.sleep(2)
            self._device.remove(self)
            model, self._model = self._model, None
            model.kv.leave()
            for arena in model.arenas:
                arena.close()

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[list[Delta]]:
        self._validate(request)
        if self._failure:
            raise EngineError("the engine broke down")
        if not self._kv_ready or not self._loaded().weights.resident:
            raise EngineError("the model is not awake")
        sequence = Sequence(self._within_reach(request), self._tokenizer, self._eos)
        self._inbox.append(sequence)
        self._device.notify()
        try:
            while True:
                delta = await sequence.next_delta()
                yield [delta]
                if delta.finish_reason:
                    return
        finally:
            sequence.aborted = True
            self._device.notify()

    def _validate(self, request: GenerateRequest) -> None:
        prompt, length = request.prompt_ids, self.info.max_model_len
        if not prompt:
            raise RequestError("the prompt is empty", param="prompt")
        if len(prompt) + 1 > length:
            raise RequestError(
                f"the prompt has {len(prompt)} tokens, the model's context is {length} tokens",
                param="messages",
                code="context_length_exceeded",
            )
        if not all(0 <= token < self._config.vocab_size for token in prompt):
            raise RequestError("a token id of the prompt is out of vocabulary", param="prompt")

    def _within_reach(self, request: GenerateRequest) -> GenerateRequest:
        """Without what can never come: tokens past the context, stop tokens out of vocabulary."""
        sampling = request.sampling
        room = self.info.max_model_len - len(request.prompt_ids)
        stops = frozenset(t for t in sampling.stop_token_ids if 0 <= t < self._config.vocab_size)
        sampling = replace(sampling, max_tokens=min(sampling.max_tokens, room), stop_token_ids=stops)
        return replace(request, sampling=sampling)

    # On the device's worker.

    @property
    def has_work(self) -> bool:
        model = self._model
        return bool(self._inbox) or (model is not None and model.scheduler.has_work)

    def step(self) -> None:
        model = self._loaded()
        with self._clock:
            self._collect(model)
            if model.scheduler.has_work:
                Sequence.deliver_all(self._advance(model))
            if not model.scheduler.has_work:
                model.kv.trim(keep=1)

    def fail(self, error: Exception) -> None:
        log.exception("the engine broke down", exc_info=error)
        self._failure = error
        scheduler = self._loaded().scheduler
        left = [*self._inbox, *scheduler.running, *scheduler.waiting]
        Sequence.deliver_all([(sequence, EngineError("the engine broke down")) for sequence in left])

    def _collect(self, model: Model) -> None:
        """Let newcomers join and those who left go."""
        while self._inbox:
            model.scheduler.add(self._inbox.popleft())
        for sequence in [*model.scheduler.running, *model.scheduler.waiting]:
            if sequence.aborted:
                model.scheduler.finish(sequence)

    def _advance(self, model: Model) -> list[tuple[Sequence, Delta | BaseException]]:
        scheduler = model.scheduler
        scheduled: Scheduled = []
        try:
            scheduled = scheduler.schedule()
            tokens = model.runner.step(scheduled)
        except Exception as error:
            if isinstance(error, OutOfMemory) and model.kv.waits_for_siblings:
                return []  # others run, and give memory back when they have done
            affected = [sequence for sequence, _ in scheduled] or [*scheduler.waiting, *scheduler.running][:1]
            return self._fail(model, affected, error)
        results: list[tuple[Sequence, Delta | BaseException]] = []
        for (sequence, _), token in zip(scheduled, tokens, strict=True):
            if token is None:
                continue
            try:
                results.append((sequence, sequence.append(token)))
            except Exception as error:
                results += self._fail(model, [sequence], error)
            if sequence.finish_reason:
                scheduler.finish(sequence)
        return results

    def _fail(
        self, model: Model, sequences: list[Sequence], error: Exception
    ) -> list[tuple[Sequence, Delta | BaseException]]:
        """End these sequences with an error; the others and the model go on."""
        if not isinstance(error, EngineError):
            log.exception("a step failed", exc_info=error)
            error = EngineError(f"a step failed: {error}")
        for sequence in sequences:
            model.scheduler.finish(sequence)
        return [(sequence, error) for sequence in sequences]

    def _release(self, level: Level) -> int:
        """Bytes given back."""
        model = self._loaded()
        self._collect(model)
        left = [*model.scheduler.running, *model.scheduler.waiting]
        Sequence.deliver_all(
            self._fail(model, left, EngineError("the model was put to sleep")) if left else []
        )
        freed = model.kv.trim()
        if level == 2 and model.weights.resident:
            model.weights.release()
            freed += model.weights.nbytes
        trim_allocator()
        return freed

    def _build(self) -> None:
        if self._from_hub:
            # The same commit as the small files, whatever the branch has become since.
            directory = fetch_weights(self._path, self._checkpoint.directory.name, self._on_bytes)
            self._checkpoint = Checkpoint(Path(directory))
        self._model = build_model(self._checkpoint, self._config, self._options, self._device)
        self._device.add(self)

    def _on_bytes(self, done: int, total: int) -> None:
        self._progress = Progress(phase="download", done=done, total=total)

    def _loaded(self) -> Model:
        if self._model is None:
            raise EngineError("the model is not loaded")
        return self._model


def _estimated_weights(directory: Path, options: EngineOptions) -> int:
    """Of a model that was never loaded; 0 while its files are not here."""
    try:
        estimate = estimate_checkpoint(str(directory), options)
    except CheckpointError:
        return 0
    return estimate.weights_bytes if estimate else 0
