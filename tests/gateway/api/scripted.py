"""A fake engine whose answers follow a script: which pieces, and when a wake and each step may go on.

The first token of an encoded text, where special tokens are asked for, is 1; the others are its bytes.
"""

from __future__ import annotations

import asyncio
import threading
from array import array
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field, replace

from engine import (
    ALL_TAGS,
    Delta,
    EngineOptions,
    FinishReason,
    GenerateRequest,
    ModelInfo,
    Tag,
    TransitionReport,
)
from tests.fake_engine import FakeBackend, FakeEngine, FakeSpec, raise_next

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}{% if loud is defined %}!{% endif %}"
)


def _open_gate() -> asyncio.Event:
    gate = asyncio.Event()
    gate.set()
    return gate


@dataclass(kw_only=True)
class Script(FakeSpec):
    """What one model does. Change it at any time."""

    max_model_len: int = 200
    chat_template: str | None = TEMPLATE

    pieces: list[str] = field(default_factory=lambda: ["Hel", "", "lo", "!"])
    finish_reason: FinishReason = "stop"
    cached_tokens: int = 0
    deltas: list[Delta] | None = None
    """To be given out instead of the pieces."""
    refusal: Exception | None = None
    """Raised before the first piece."""
    failure: Exception | None = None
    """Raised before the last piece."""
    fault: str | None = None
    tokens: dict[str, int] = field(default_factory=dict)
    """Texts that are tokens of their own."""
    may_open: threading.Event = field(default_factory=threading.Event)
    may_wake: asyncio.Event = field(default_factory=_open_gate)
    may_step: asyncio.Event = field(default_factory=_open_gate)
    one_by_one: bool = False
    """Each step closes ``may_step`` behind itself."""

    wakes: int = 0
    resets: int = 0
    running: int = 0
    requests: list[GenerateRequest] = field(default_factory=list)
    embedded: list[Sequence[Sequence[int]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.may_open.set()

    def answer(self, max_tokens: int) -> list[Delta]:
        """All of it, unless there is to be none."""
        if max_tokens == 0:
            told = self.deltas[0].prompt_logprobs if self.deltas else None
            return [Delta(finish_reason="length", prompt_logprobs=told, cached_tokens=self.cached_tokens)]
        if self.deltas is not None:
            return self.deltas
        answer = [Delta(token_ids=(65,), text=piece) for piece in self.pieces]
        answer[0] = replace(answer[0], cached_tokens=self.cached_tokens)
        answer[-1] = replace(answer[-1], finish_reason=self.finish_reason)
        return answer


class ScriptedEngine(FakeEngine):
    def __init__(self, name: str, script: Script, backend: FakeBackend, options: EngineOptions) -> None:
        super().__init__(name, script, backend, options)
        self.script = script

    @property
    def info(self) -> ModelInfo:
        return replace(super().info, longest_token_bytes=2)

    def encode(self, text: str, *, add_special_tokens: bool = True, most: int | None = None) -> list[int]:
        special = [1] if add_special_tokens else []
        ids = [self.script.tokens[text]] if text in self.script.tokens else list(text.encode())
        return special + (ids if most is None else ids[len(ids) - (most - len(special)) :])

    async def wake(self, tags: frozenset[Tag] = ALL_TAGS) -> TransitionReport:
        await self.script.may_wake.wait()
        report = await super().wake(tags)
        self.script.wakes += 1
        return report

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[list[Delta]]:
        script = self.script
        assert self.tags == ALL_TAGS, "asked while asleep"
        script.requests.append(request)
        script.running += 1
        try:
            if script.refusal:
                raise script.refusal
            for delta in script.answer(request.sampling.max_tokens):
                await self._step()
                if delta.finish_reason and script.failure:
                    raise script.failure
                others = replace(delta, prompt_logprobs=None)
                yield [delta, *(replace(others, index=index) for index in range(1, request.n))]
        finally:
            script.running -= 1

    async def embed(
        self, inputs: Sequence[Sequence[int]], dimensions: int | None = None
    ) -> list[array[float]]:
        self.script.embedded.append(inputs)
        self.script.running += 1
        try:
            await self._step()
            return await super().embed(inputs, dimensions)
        finally:
            self.script.running -= 1

    async def reset_prefix_cache(self) -> None:
        self.script.resets += 1

    def fault(self) -> str | None:
        return self.script.fault

    async def _step(self) -> None:
        await self.script.may_step.wait()
        if self.script.one_by_one:
            self.script.may_step.clear()


class ScriptedBackend(FakeBackend):
    """Opens a model by its path, which is the key of its script."""

    def __init__(self, scripts: dict[str, Script]) -> None:
        super().__init__(dict(scripts))
        self.scripts = scripts

    def open(self, path: str, device: str = "auto", options: EngineOptions | None = None) -> FakeEngine:
        script = self.scripts[path]
        script.may_open.wait()
        raise_next(script, "open")
        self.engines[path] = ScriptedEngine(path, script, self, options or EngineOptions())
        return self.engines[path]
