"""An engine that answers by a script, and a backend that hands it to the real fleet.

A token is a byte. The script says which pieces an answer has, and when a wake and each step may go on.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from engine import (
    ALL_TAGS,
    CheckpointError,
    Delta,
    Engine,
    EngineOptions,
    Estimate,
    Footprint,
    GenerateRequest,
    Level,
    MemoryState,
    ModelInfo,
    Progress,
    RequestError,
    Tag,
    TransitionReport,
)

MIB = 2**20
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}{% if loud is defined %}!{% endif %}"
)


@dataclass
class Script:
    """What one model does. Change it at any time."""

    pieces: list[str] = field(default_factory=lambda: ["Hel", "", "lo", "!"])
    finish_reason: str = "stop"
    template: str | None = TEMPLATE
    defaults: dict[str, float] = field(default_factory=dict)
    opens: bool = True
    wake_failure: Exception | None = None
    refusal: RequestError | None = None
    failure: Exception | None = None
    """Raised when all pieces but the last have come."""
    fault: str | None = None
    may_open: threading.Event = field(default_factory=threading.Event)
    may_wake: asyncio.Event = field(default_factory=asyncio.Event)
    may_step: asyncio.Event = field(default_factory=asyncio.Event)
    """Set again for each step when ``one_by_one``."""
    one_by_one: bool = False

    wakes: int = 0
    running: int = 0
    requests: list[GenerateRequest] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.may_open.set()
        self.may_wake.set()
        self.may_step.set()

    async def step(self) -> None:
        await self.may_step.wait()
        if self.one_by_one:
            self.may_step.clear()


class ScriptedEngine:
    def __init__(self, script: Script, options: EngineOptions) -> None:
        self._script = script
        self._held: frozenset[Tag] = frozenset()
        self.info = ModelInfo(
            kind="generate",
            architecture="ScriptedForCausalLM",
            dtype="float32",
            max_model_len=options.max_model_len or 200,
            vocab_size=256,
            longest_token_bytes=2,
            chat_template=script.template,
            special_tokens={"bos_token": "<s>", "eos_token": "</s>"},
            sampling_defaults=script.defaults,
        )
        self.last_step_at: float | None = None

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return ([1] if add_special_tokens else []) + list(text.encode())

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        return bytes(token_ids).decode(errors="replace")

    async def load(self) -> None: ...

    async def wake(self, tags: frozenset[Tag] = ALL_TAGS) -> TransitionReport:
        await self._script.may_wake.wait()
        if self._script.wake_failure:
            raise self._script.wake_failure
        self._script.wakes += 1
        self._held |= tags
        return TransitionReport(seconds=0.0, bytes=MIB)

    async def sleep(self, level: Level) -> TransitionReport:
        assert not self._script.running, "put to sleep while it answers"
        self._held = frozenset()
        return TransitionReport(seconds=0.0, bytes=MIB)

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[list[Delta]]:
        script = self._script
        script.requests.append(request)
        script.running += 1
        try:
            if script.refusal:
                raise script.refusal
            for i, piece in enumerate(script.pieces):
                await script.step()
                last = i == len(script.pieces) - 1
                if last and script.failure:
                    raise script.failure
                finish = script.finish_reason if last else None
                yield [Delta(token_ids=(65 + i,), text=piece, finish_reason=finish)]  # type: ignore[arg-type]
        finally:
            script.running -= 1

    async def trim_kv(self) -> int:
        return 0

    async def reload_weights(self) -> None: ...

    def footprint(self) -> Footprint:
        return Footprint(weights=MIB if self._held else 0, to_wake=0 if self._held else MIB)

    def progress(self) -> Progress | None:
        return None

    def fault(self) -> str | None:
        return self._script.fault

    async def close(self) -> None: ...


class ScriptedBackend:
    """Opens a model by its path, which is the key of its script."""

    def __init__(self, scripts: dict[str, Script]) -> None:
        self._scripts = scripts

    def open(self, path: str, device: str = "auto", options: EngineOptions | None = None) -> Engine:
        self._scripts[path].may_open.wait()
        if not self._scripts[path].opens:
            raise CheckpointError(f"{path}/config.json is not there", reason="its files are gone")
        return ScriptedEngine(self._scripts[path], options or EngineOptions())

    def estimate(self, path: str, options: EngineOptions | None = None) -> Estimate | None:
        return Estimate(
            weights_bytes=MIB, kv_bytes_per_token=1, max_model_len=200, architecture="ScriptedForCausalLM"
        )

    def memory_state(self, device: str = "cpu") -> MemoryState:
        return MemoryState(total=1000 * MIB, available=900 * MIB, shared_with_host=True)
