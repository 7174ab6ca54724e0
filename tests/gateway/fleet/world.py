"""A fleet of fake engines on a virtual clock, and clients that ask it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from engine import GenerateRequest, SamplingParams
from gateway.config import Config, MemoryConfig, ModelConfig, Size, TurnConfig
from gateway.fleet import Fleet, State, VirtualTimers
from gateway.fleet.idle import settle
from tests.fake_engine import MIB, FakeBackend, FakeEngine, FakeSpec

Result = TypeVar("Result")

NO_TURNS = TurnConfig(min_awake=0.0, turn=0.0)


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    waited: float
    queue_seconds: float
    wake_seconds: float
    at: float


class World:
    def __init__(self, config: Config, timers: VirtualTimers, backend: FakeBackend) -> None:
        self.config = config
        self.timers = timers
        self.backend = backend
        self.fleet = Fleet(config, timers, backend=backend)

    def ask(
        self, name: str, prompt: str = "x", *, tokens: int = 1000, keep_alive: float | None = None
    ) -> asyncio.Task[Answer]:
        return self.begin(self._ask(name, prompt, tokens, keep_alive))

    def begin(self, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        """A task whose failure nobody need look at."""
        task = asyncio.create_task(work)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task

    async def _ask(self, name: str, prompt: str, tokens: int, keep_alive: float | None) -> Answer:
        asked = self.timers.now()
        async with self.fleet.lease(name, keep_alive=keep_alive) as lease:
            granted = self.timers.now()
            sampling = SamplingParams(max_tokens=tokens)
            request = GenerateRequest(prompt_ids=lease.engine.encode(prompt), sampling=sampling)
            text = ""
            async for deltas in lease.generate(request):
                text += "".join(delta.text for delta in deltas)
            return Answer(
                text, granted - asked, lease.queue_seconds, lease.wake_seconds, at=self.timers.now()
            )

    async def advance(self, seconds: float = 0.0) -> None:
        await self.timers.advance(seconds)

    async def answered(self, name: str, prompt: str = "x", *, within: float = 60.0, **how: Any) -> Answer:
        """Ask and let time pass until the answer is there."""
        asked = self.ask(name, prompt, **how)
        end = self.timers.now() + within
        while not asked.done() and self.timers.now() < end:
            await self.advance(0.1)
        assert asked.done(), f"no answer of {name} within {within} s"
        return asked.result()

    def engine(self, name: str) -> FakeEngine:
        return self.backend.engines[name]

    def spec(self, name: str) -> FakeSpec:
        return self.backend.specs[name]

    def state(self, name: str) -> tuple[State, int | None]:
        status = self.fleet.status_of(name)
        return status.state, status.level

    def calls(self, name: str, call: str) -> int:
        return self.engine(name).calls.count(call)

    def device_bytes(self) -> int:
        return sum(engine.footprint().device for engine in self.backend.engines.values())


@asynccontextmanager
async def world(
    specs: dict[str, FakeSpec],
    *,
    total: int = 1000 * MIB,
    device_limit: int | None = None,
    host_limit: int | None = None,
    host_total: int = 10_000 * MIB,
    shared: bool = True,
    turns: TurnConfig = NO_TURNS,
    open_first: bool = True,
    make_backend: type[FakeBackend] = FakeBackend,
    **configs: dict[str, Any],
) -> AsyncIterator[World]:
    """``configs`` are the models' settings by name. Checks at the end that nobody misused an engine."""
    timers = VirtualTimers()
    backend = make_backend(specs, total=total, host_total=host_total, shared=shared, sleep=timers.sleep)
    memory = MemoryConfig(
        device_limit=Size(bytes=total if device_limit is None else device_limit),
        host_limit=Size(bytes=host_total if host_limit is None else host_limit),
    )
    models = tuple(ModelConfig(name=name, path=name, **configs.get(name, {})) for name in specs)
    it = World(Config(models=models, memory=memory, turns=turns), timers, backend)
    await it.fleet.start()
    if open_first:
        for name in specs:
            await it.fleet.opened(name)  # in a thread, which no virtual clock waits for
    await settle()
    try:
        yield it
    finally:
        await it.fleet.close()
    assert backend.misuse == []
