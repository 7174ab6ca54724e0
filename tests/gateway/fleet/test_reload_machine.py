"""A fleet reconfigured at random while clients come and leave, models fail and hands put them to sleep."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine import CheckpointError, EngineOptions, Level
from gateway.config import ModelConfig, TurnConfig
from gateway.errors import ApiError
from gateway.fleet import State
from tests.fake_engine import MIB, FakeBackend, FakeEngine, FakeSpec
from tests.gateway.fleet.world import Answer, World, world

TOTAL = 1000 * MIB
SIZES = {"a": 300, "b": 500, "c": 400}
NAMES = st.sampled_from(sorted(SIZES))
LENGTHS = st.sampled_from([None, 64])
"""Another length needs another engine."""
SETTINGS = st.fixed_dictionaries({"idle_timeout": st.sampled_from([1.0, 5.0]), "max_model_len": LENGTHS})


class Engines(FakeBackend):
    """Several of one path at a time: an old one may have to finish."""

    def open(self, path: str, device: str = "auto", options: EngineOptions | None = None) -> FakeEngine:
        if path in self.engines:
            self.engines[f"{path} {len(self.engines)}"] = self.engines.pop(path)
        return super().open(path, device, options)


class ReloadMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.stack = AsyncExitStack()
        self.w: World
        self.requests: dict[asyncio.Task[Answer], str] = {}
        """The right answer."""
        self.left: set[asyncio.Task[Answer]] = set()
        self.hands: set[asyncio.Task[Any]] = set()
        self.names = set(SIZES)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    @initialize(shared=st.booleans())
    def start(self, shared: bool) -> None:
        specs = {
            name: FakeSpec(weights=size * MIB, wake_seconds=1.0, token_seconds=0.5, sleep_seconds=0.01)
            for name, size in SIZES.items()
        }
        turns = TurnConfig(min_awake=0.5, turn=2.0)
        a_world = world(specs, total=TOTAL, shared=shared, turns=turns, make_backend=Engines)
        self.w = self.run(self.stack.enter_async_context(a_world))

    @rule(sections=st.dictionaries(NAMES, SETTINGS, min_size=1))
    def reload(self, sections: dict[str, dict[str, Any]]) -> None:
        async def reload() -> None:
            fleet = self.w.fleet
            models = tuple(
                ModelConfig(name=name, path=name, max_wait=20.0, **keys) for name, keys in sections.items()
            )
            fleet.reconfigure(replace(fleet.config, models=models))
            self.names = set(sections)
            for name in sections:
                await fleet.opened(name)  # in a thread, which no virtual clock waits for
            await self.w.advance()

        self.run(reload())

    @rule(name=NAMES, tokens=st.integers(1, 12))
    def ask(self, name: str, tokens: int) -> None:
        async def begin() -> None:
            task = self.w.ask(name, f"prompt {len(self.requests)}", tokens=tokens)
            self.requests[task] = f"Hello from {name}: prompt {len(self.requests)}"[:tokens]
            await self.w.advance()

        self.run(begin())

    @precondition(lambda self: any(not task.done() for task in self.requests))
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        async def cancel() -> None:
            task = data.draw(st.sampled_from([task for task in self.requests if not task.done()]))
            task.cancel()
            self.left.add(task)
            await self.w.advance()

        self.run(cancel())

    @rule(seconds=st.sampled_from([0.05, 0.5, 1.0, 3.0, 8.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.run(self.w.advance(seconds))

    @rule(level=st.sampled_from([None, 1, 2]))
    def sleep_by_hand(self, level: Level | None) -> None:
        async def begin() -> None:
            self.hands.add(self.w.begin(self.w.fleet.sleep(None, level)))
            await self.w.advance()

        self.run(begin())

    @rule()
    def adopt_by_hand(self) -> None:
        async def begin() -> None:
            self.hands.add(self.w.begin(self.w.fleet.reload_weights(None)))
            await self.w.advance()

        self.run(begin())

    @rule(name=NAMES)
    def break_next_wake(self, name: str) -> None:
        self.w.spec(name).failures["wake"] = [CheckpointError("gone")]

    @invariant()
    def what_is_configured_is_what_is_seen(self) -> None:
        assert {status.name for status in self.w.fleet.status()} == self.names

    @invariant()
    def engines_and_memory_are_used_rightly(self) -> None:
        assert self.w.backend.misuse == []
        engines = [engine for engine in self.w.backend.engines.values() if not engine.closed]
        held = sum(engine.footprint().device for engine in engines)
        assert self.w.fleet.memory()["device"]["used"] == held <= TOTAL

    @invariant()
    def answers_are_right_or_excused(self) -> None:
        for task, text in self.requests.items():
            if task.cancelled():
                assert task in self.left
            elif task.done():
                assert isinstance(task.exception(), ApiError) or task.result().text == text
        for hand in self.hands:
            assert not hand.done() or isinstance(hand.exception(), ApiError | None)

    def teardown(self) -> None:
        try:
            if hasattr(self, "w"):
                self.run(self.at_the_end())
        finally:
            self.run(self.stack.aclose())
            self.loop.close()

    async def at_the_end(self) -> None:
        for spec in self.w.backend.specs.values():
            spec.failures.clear()
        await self.w.advance(400.0)
        assert all(task.done() for task in [*self.requests, *self.hands]), "everybody gets an answer"
        self.answers_are_right_or_excused()
        served = [engine for engine in self.w.backend.engines.values() if not engine.closed]
        assert sorted(engine.name for engine in served) == sorted(self.names), "the others have closed"
        for status in self.w.fleet.status():
            assert status.in_flight == 0
            assert status.state in (State.COLD, State.ASLEEP, State.FAILED)


ReloadMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30)
test_reload_machine = ReloadMachine.TestCase
