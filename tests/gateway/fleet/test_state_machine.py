"""A fleet driven at random: clients that come and leave, timers, hands, failures and shortages.

After each step the fleet must keep its promises; at the end every client has its answer and all sleep.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any, Literal

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from engine import ALL_TAGS, CheckpointError, DeviceError, Level, OutOfMemory, Tag
from gateway.config import TurnConfig
from gateway.errors import ApiError, ShuttingDown
from gateway.fleet import State, Transition
from gateway.fleet.view import seen_by_policy
from tests.fake_engine import MIB, FakeSpec
from tests.gateway.fleet.world import Answer, World, world

TOTAL = 1000 * MIB
RESIDUES = 4 * MIB
MAX_WAIT = 20.0
NAMES = st.sampled_from(["a", "b", "c", "pinned"])
TAGS: st.SearchStrategy[frozenset[Tag]] = st.sampled_from(
    [ALL_TAGS, frozenset({"weights"}), frozenset({"kv_cache"})]
)


class FleetMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.stack = AsyncExitStack()
        self.w: World
        self.requests: dict[asyncio.Task[Answer], tuple[str, str]] = {}
        """Model and right answer."""
        self.left: set[asyncio.Task[Answer]] = set()
        self.hands: set[asyncio.Task[Any]] = set()
        self.drained = False

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    @initialize(shared=st.booleans(), host_limit=st.sampled_from([0, 450 * MIB, 5000 * MIB]))
    def start(self, shared: bool, host_limit: int) -> None:
        sizes = {"a": 300, "b": 500, "c": 500, "pinned": 50}
        specs = {
            name: FakeSpec(weights=size * MIB, wake_seconds=1.0, sleep_seconds=0.01, token_seconds=0.5)
            for name, size in sizes.items()
        }
        common = {"idle_timeout": 5.0, "deepen_after": 30.0, "max_wait": MAX_WAIT, "max_running": 2}
        configs: dict[str, dict[str, Any]] = {name: common | {"max_waiting": 4} for name in specs}
        configs["pinned"]["pinned"] = True
        a_world = world(
            specs,
            total=TOTAL,
            host_limit=host_limit,
            shared=shared,
            turns=TurnConfig(min_awake=1.0, turn=3.0),
            **configs,
        )
        self.w = self.run(self.stack.enter_async_context(a_world))
        self.w.fleet.events.subscribe(self.watch)

    def watch(self, transition: Transition) -> None:
        """What must hold at each transition."""
        engine = self.w.engine(transition.model)
        if transition.after is State.ASLEEP and transition.before is State.DRAINING:
            assert engine.running == 0, "slept with something in flight"
            if transition.model == "pinned":
                assert transition.cause == "manual"
        if transition.after is State.AWAKE:
            assert engine.tags == ALL_TAGS

    @rule(name=NAMES, tokens=st.integers(1, 8), keep_alive=st.sampled_from([None, None, 0.0, 2.0]))
    def ask(self, name: str, tokens: int, keep_alive: float | None) -> None:
        async def begin() -> None:
            number = len(self.requests)
            task = self.w.ask(name, f"prompt {number}", tokens=tokens, keep_alive=keep_alive)
            self.requests[task] = (name, f"Hello from {name}: prompt {number}"[:tokens])
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

    @rule(seconds=st.sampled_from([0.0, 0.05, 0.3, 0.5, 1.0, 2.0, 5.0, 7.5, 31.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.run(self.w.advance(seconds))

    @rule(
        name=st.one_of(st.none(), NAMES),
        level=st.sampled_from([None, 1, 2]),
        mode=st.sampled_from(["wait", "abort"]),
    )
    def sleep_by_hand(self, name: str | None, level: Level | None, mode: Literal["wait", "abort"]) -> None:
        self.by_hand(self.w.fleet.sleep(name, level, mode))

    @rule(name=NAMES, tags=TAGS)
    def wake_by_hand(self, name: str, tags: frozenset[Tag]) -> None:
        self.by_hand(self.w.fleet.wake(name, tags))

    @rule(name=st.one_of(st.none(), NAMES))
    def reload_by_hand(self, name: str | None) -> None:
        self.by_hand(self.w.fleet.reload_weights(name))

    def by_hand(self, work: Coroutine[Any, Any, Any]) -> None:
        async def begin() -> None:
            self.hands.add(self.w.begin(work))
            await self.w.advance()

        self.run(begin())

    @rule(name=NAMES, kind=st.sampled_from(["memory", "files", "device"]), times=st.integers(1, 2))
    def break_next_wakes(self, name: str, kind: str, times: int) -> None:
        errors = {
            "memory": OutOfMemory(100 * MIB, 50 * MIB),
            "files": CheckpointError("gone"),
            "device": DeviceError("a copy failed"),
        }
        self.w.spec(name).failures["wake"] = [errors[kind]] * times

    @rule(name=NAMES, step=st.sampled_from(["reload_weights", "refill"]))
    def break_next_reload(self, name: str, step: Literal["reload_weights", "refill"]) -> None:
        self.w.spec(name).failures[step] = [CheckpointError("gone")]

    @rule(name=NAMES)
    def break_next_generation(self, name: str) -> None:
        self.w.spec(name).failures["generate"] = [DeviceError("a step failed")]

    @rule(foreign=st.sampled_from([0, 0, 300 * MIB, 900 * MIB]))
    def use_memory_elsewhere(self, foreign: int) -> None:
        self.w.backend.foreign = foreign

    @rule(name=NAMES, size=st.integers(1, 300))
    def grow_kv(self, name: str, size: int) -> None:
        """Sequences have grown and gone; the engine keeps what the device allowed."""
        engine = self.w.engine(name)
        if engine.tags == ALL_TAGS:
            engine.kv += max(0, min(size * MIB, TOTAL - RESIDUES - self.w.device_bytes()))

    @rule()
    def look(self) -> None:
        self.w.fleet.status()
        self.w.fleet.memory()
        self.w.fleet.is_sleeping(None)

    @precondition(lambda self: not self.drained and len(self.requests) > 12)
    @rule()
    def drain(self) -> None:
        self.drained = True
        self.by_hand(self.w.fleet.drain())

    @invariant()
    def engines_are_used_rightly(self) -> None:
        assert self.w.backend.misuse == []

    @invariant()
    def memory_is_within_its_limits(self) -> None:
        assert self.w.device_bytes() <= TOTAL
        if not self.w.backend.shared:
            copies = sum(engine.host_copy for engine in self.w.backend.engines.values())
            host = self.w.fleet.memory()["host"]
            assert host["used"] == copies <= host["limit"]

    @invariant()
    def plans_see_quiet_models_as_they_are(self) -> None:
        """All but KV that the engine gave back by itself, and that more of it came to be."""
        self.w.fleet._models.views(self.w.timers.now())
        for models in self.w.fleet._models._quiet.values():
            for model, view in models.items():
                seen = seen_by_policy(model, self.w.timers.now())
                kv = {"device_bytes": seen.device_bytes, "kv_unused": seen.kv_unused, "to_wake": seen.to_wake}
                assert replace(view, **kv) == seen
                assert view.device_bytes - seen.device_bytes == view.kv_unused - seen.kv_unused

    @invariant()
    def in_flight_is_exact(self) -> None:
        for name in self.w.backend.engines:
            mine = [task for task, (of, _) in self.requests.items() if of == name and not task.done()]
            status = self.w.fleet.status_of(name)
            assert status.in_flight == len(mine)
            assert self.w.engine(name).running <= min(2, status.in_flight)
            assert status.queued <= min(4, status.in_flight)

    @invariant()
    def states_are_what_the_engines_are(self) -> None:
        for name, engine in self.w.backend.engines.items():
            state, level = self.w.state(name)
            if state in (State.AWAKE, State.DRAINING):
                assert engine.tags == ALL_TAGS
                assert level is None
            elif level is not None and not engine.tags and not engine.moving:
                assert bool(engine.weights or engine.host_copy) == (level == 1)

    @invariant()
    def nobody_oversleeps_a_timer(self) -> None:
        for status in self.w.fleet.status():
            assert status.sleeps_in_seconds is None or status.sleeps_in_seconds > 0

    @invariant()
    def answers_are_right_or_excused(self) -> None:
        for task, (_, text) in self.requests.items():
            if task.done() and not task.cancelled():
                error = task.exception()
                assert error is None or isinstance(error, ApiError | DeviceError)
                assert error is not None or task.result().text == text
                if isinstance(error, ShuttingDown):
                    assert self.drained
            if task.cancelled():
                assert task in self.left
        for hand in self.hands:
            if hand.done():
                assert isinstance(hand.exception(), ApiError | None)

    def teardown(self) -> None:
        try:
            if hasattr(self, "w"):
                self.run(self.at_the_end())
        finally:
            self.run(self.stack.aclose())
            self.loop.close()

    async def at_the_end(self) -> None:
        self.w.backend.foreign = 0
        for spec in self.w.backend.specs.values():
            spec.failures.clear()
        await self.w.advance(3 * MAX_WAIT)
        assert all(task.done() for task in [*self.requests, *self.hands]), "everybody gets an answer"
        self.answers_are_right_or_excused()
        await self.w.advance(100.0)
        for status in self.w.fleet.status():
            assert (status.in_flight, status.queued) == (0, 0)
            assert status.pinned or status.state in (State.COLD, State.ASLEEP, State.FAILED)
            assert status.pinned or self.w.engine(status.name).tags == frozenset()


FleetMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=40)
test_fleet_machine = FleetMachine.TestCase
