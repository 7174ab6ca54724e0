"""Driving an engine in tests: with its logits recorded, whole (worker and all) or stepped by hand."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import json
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.blocks import BlockPool
from engine.checkpoint import Checkpoint
from engine.chunk import StepBudget
from engine.device import Device
from engine.engine import TorchEngine
from engine.info import stop_token_ids
from engine.memory.cpu import CpuArena
from engine.model import Model, build_model
from engine.models.config import ModelConfig
from engine.runner import Prefill, Runner
from engine.sampler import Sampled
from engine.sequence import Sequence as Running
from engine.stepping import GenerationStepper
from engine.stream import DeltaStream
from engine.tokenizer import Tokenizer
from engine.types import Delta, EngineOptions, GenerateRequest, SamplingParams

patience = 20.0
"""Seconds that anything may take which takes no time."""


def greedy(max_tokens: int, **overrides: Any) -> SamplingParams:
    return SamplingParams(**{"max_tokens": max_tokens, "temperature": 0.0, "ignore_eos": True, **overrides})


class FixedBudget(StepBudget):
    """Chunks of one size, whole in a step, whatever it takes."""

    def __init__(self, chunk: int) -> None:
        super().__init__()
        self.chunk = chunk

    def tokens(self, decoding: int, prompts: int = 1) -> int:
        return self.chunk


class RecordingDecoder:
    """A decoder that keeps the logits of every step."""

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder
        self._weights = decoder._weights
        self.attention = decoder.attention
        self.steps: list[torch.Tensor] = []
        self.begin, self.advance, self.hidden = decoder.begin, decoder.advance, decoder.hidden

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._decoder.logits(hidden)
        self.steps.append(logits.clone())
        return logits

    @classmethod
    def of(cls, engine: TorchEngine) -> RecordingDecoder:
        """Record a loaded engine's logits from now on."""
        assert engine._model and engine._stepper
        runner = engine._model.runner
        recorder = cls(runner.decoder)
        recording = Runner(recorder, runner.kv, runner.device)  # type: ignore[arg-type]
        engine._model = engine._stepper.model = dataclasses.replace(engine._model, runner=recording)
        return recorder


@dataclasses.dataclass
class Answer:
    """What an engine said, and the logits that each token was chosen from."""

    token_ids: list[int] = dataclasses.field(default_factory=list)
    text: str = ""
    finish_reason: str | None = None
    logits: list[torch.Tensor] = dataclasses.field(default_factory=list)

    def take(self, delta: Delta) -> None:
        self.token_ids += delta.token_ids
        self.text += delta.text
        self.finish_reason = delta.finish_reason


class Stepper:
    """Scheduler, runner and cache of one checkpoint, stepped by hand; needs a running loop."""

    def __init__(
        self, directory: Path, chunk: int | None = None, blocks: int | None = None, **options: Any
    ) -> None:
        """``chunk``: prompts are computed in pieces of so many tokens, beside others or not. ``blocks``: as
        if the cache had no more."""
        checkpoint = Checkpoint(directory)
        config = ModelConfig.parse(checkpoint.config)
        self._tokenizer = Tokenizer(checkpoint.tokenizer_file)
        self._eos = stop_token_ids(checkpoint, self._tokenizer, config.vocab_size)
        self.model = build_model(checkpoint, config, EngineOptions(**options), Device("cpu", CpuArena))
        self.model.weights.fill()
        if chunk:
            self.model.scheduler.budget = FixedBudget(chunk)
        if blocks:
            limit_blocks(self.model, blocks)
        self._recorder = RecordingDecoder(self.model.runner.decoder)
        self._runner = Runner(self._recorder, self.model.kv, torch.device("cpu"))  # type: ignore[arg-type]
        self.answers: dict[Running, Answer] = {}
        self.log: list[list[tuple[Running, int]]] = []
        """What each step computed, a chunk of prompts where it was begun."""
        self._prefill: Prefill | None = None

    def add(self, prompt_ids: Sequence[int], sampling: SamplingParams, n: int = 1) -> Running:
        """The first choice."""
        request = GenerateRequest(prompt_ids=prompt_ids, sampling=sampling, n=n)
        sequence = Running.of(request, self._tokenizer, self._eos, DeltaStream())
        self.model.scheduler.add(sequence)
        self.answers |= {choice: Answer() for choice in (sequence, *sequence.followers)}
        return sequence

    def step(self, layers: int | None = None) -> None:
        """``layers``: at most so many of a prompt; None: all."""
        scheduler = self.model.scheduler
        decoding = scheduler.decode()
        if decoding:
            self._take(decoding, self._runner.decode(decoding).wait())
        tokens = scheduler.budget.tokens(len(decoding), scheduler.prompts)
        prefilling = scheduler.begin_prefill(tokens) if scheduler.has_work else []
        if prefilling:
            if self._prefill is None or self._prefill.scheduled is not prefilling:
                self._prefill = self._runner.begin_prefill(prefilling)
                decoding = [*decoding, *prefilling]
            counter = itertools.count(1)
            while more := self._runner.advance(self._prefill):
                if next(counter) == layers:
                    break
            if not more:
                drawn = self._runner.end_prefill(self._prefill)
                scheduler.end_prefill()
                self._take(prefilling, drawn)
        self.log.append(decoding)

    def _take(self, scheduled: list[tuple[Running, int]], tokens: Sequence[Sampled | None]) -> None:
        scheduler = self.model.scheduler
        scheduler.computed(scheduled)
        rows = iter(self._recorder.steps[-1] if self._recorder.steps else ())
        for (sequence, _), token in zip(scheduled, tokens, strict=True):
            if token is None:
                continue
            logits = next(rows)
            if sequence in scheduler.running:
                answer = self.answers[sequence]
                answer.take(sequence.append(*token))
                answer.logits.append(logits)
                if sequence.finish_reason:
                    scheduler.finish(sequence)

    def run(self) -> None:
        while self.model.scheduler.has_work:
            self.step()

    def answer(self, prompt_ids: Sequence[int], sampling: SamplingParams) -> Answer:
        """Alone, to the end."""
        sequence = self.add(prompt_ids, sampling)
        self.run()
        return self.answers[sequence]

    def close(self) -> None:
        for arena in self.model.arenas:
            arena.close()


def before_passes(
    monkeypatch: pytest.MonkeyPatch, look: Callable[[Sequence[tuple[Running, int]]], None]
) -> None:
    """``look`` at what is scheduled before a pass over it begins, of prompts or of answers; it may raise."""
    for name in ("decode", "begin_prefill"):
        real = getattr(Runner, name)

        def begin(runner: Runner, scheduled: Any, real: Any = real) -> Any:
            look(scheduled)
            return real(runner, scheduled)

        monkeypatch.setattr(Runner, name, begin)


def limit_blocks(model: Model, blocks: int) -> None:
    """As if the cache had no more than these. It must be unused."""
    kv = model.kv
    kv.memory.num_blocks = blocks
    kv.pool = BlockPool(blocks, caching=kv._caching)


async def collect(engine: TorchEngine, prompt_ids: Sequence[int], sampling: SamplingParams) -> Answer:
    """The whole answer of a running engine."""
    answer = Answer()
    async for deltas in engine.generate(GenerateRequest(prompt_ids=prompt_ids, sampling=sampling)):
        for delta in deltas:
            answer.take(delta)
    return answer


def edit_json(path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def prompt(length: int, seed: int = 0, vocabulary: int = 300) -> list[int]:
    """Random token ids, none of them special."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(4, vocabulary, (length,), generator=generator).tolist()


@contextlib.asynccontextmanager
async def paused(device: Device) -> AsyncIterator[None]:
    """The device's worker waits until the body is done, so that what the body asks for comes in one batch."""
    go_on = threading.Event()
    waiting = asyncio.create_task(device.between_steps(go_on.wait))
    try:
        yield
    finally:
        go_on.set()
        await waiting


async def together(engine: TorchEngine, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[Answer]:
    """Greedy answers in one batch, the same batch every time."""
    stepper = engine._stepper
    assert isinstance(stepper, GenerationStepper)
    async with paused(engine._device):
        tasks = [asyncio.create_task(collect(engine, ids, greedy(max_tokens))) for ids in prompts]
        await until(lambda: len(stepper.inbox) == len(prompts))
    return await asyncio.gather(*tasks)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(patience):
        while not condition():  # noqa: ASYNC110 - what is waited for happens on other threads
            await asyncio.sleep(0.002)
