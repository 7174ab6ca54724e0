"""A fake engine whose answers follow a script: which pieces, and when a wake and each step may go on.

The first token of an encoded text, where special tokens are asked for, is 1; the others are its bytes.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
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
    refusal: Exception | None = None
    """Raised before the first piece."""
    failure: Exception | None = None
    """Raised before the last piece."""
    fault: str | None = None
    may_open: threading.Event = field(default_factory=threading.Event)
    may_wake: asyncio.Event = field(default_factory=_open_gate)
    may_step: asyncio.Event = field(default_factory=_open_gate)
    one_by_one: bool = False
    """Each step closes ``may_step`` behind itself."""

    wakes: int = 0
    running: int = 0
    requests: list[GenerateRequest] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.may_open.set()


class ScriptedEngine(FakeEngine):
    def __init__(self, name: str, script: Script, backend: FakeBackend, options: EngineOptions) -> None:
        super().__init__(name, script, backend, options)
        self.script = script

    @property
    def info(self) -> ModelInfo:
        return replace(super().info, longest_token_bytes=2)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return ([1] if add_special_tokens else []) + list(text.encode())

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
            for i, piece in enumerate(script.pieces):
                await self._step()
                last = i == len(script.pieces) - 1
                if last and script.failure:
                    raise script.failure
                yield [
                    Delta(token_ids=(65,), text=piece, finish_reason=script.finish_reason if last else None)
                ]
        finally:
            script.running -= 1

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
