"""What a model is waited for: its wake, room for it, its turn, or a place."""

from __future__ import annotations

from typing import Any

from gateway.config import TurnConfig
from gateway.fleet import State
from tests.fake_engine import MIB, FakeSpec
from tests.gateway.fleet.world import World, world

ONE_AT_A_TIME = {"total": 150 * MIB}


def told(world: World, name: str) -> tuple[State, str | None]:
    status = world.fleet.status_of(name)
    return status.state, status.waiting_for


async def test_a_model_that_nobody_waits_for() -> None:
    async with world({"a": FakeSpec(token_seconds=1.0)}) as w:
        assert told(w, "a") == (State.COLD, None)
        asked = w.ask("a", tokens=3)
        await w.advance(1.5)
        assert told(w, "a") == (State.AWAKE, None)
        await w.advance(2.0)
        assert asked.done() and told(w, "a") == (State.AWAKE, None)


async def test_a_wake_is_told_from_its_preparations_on() -> None:
    async with world({"a": FakeSpec(load_seconds=1.0, wake_seconds=1.0)}) as w:
        asked = w.ask("a")
        for _ in range(2):
            await w.advance(0.6)
            assert told(w, "a") == (State.WAKING, "wake")
        await w.advance(1.0)
        assert asked.done()


async def test_room_that_a_busy_model_has() -> None:
    specs = {"busy": FakeSpec(token_seconds=1.0), "a": FakeSpec(wake_seconds=1.0)}
    async with world(specs, **ONE_AT_A_TIME, turns=TurnConfig(min_awake=0.0, turn=100.0)) as w:
        w.ask("busy", tokens=5)
        await w.advance(1.0)
        asked = w.ask("a")
        for _ in range(3):
            await w.advance(1.0)
            assert told(w, "a") == (State.COLD, "room")
        await w.advance(1.5)
        assert told(w, "a") == (State.WAKING, "wake")
        await w.advance(1.0)
        assert asked.done()


async def test_room_is_told_of_a_wake_by_hand_too() -> None:
    specs = {"busy": FakeSpec(token_seconds=1.0), "a": FakeSpec()}
    async with world(specs, **ONE_AT_A_TIME, turns=TurnConfig(min_awake=0.0, turn=100.0)) as w:
        w.ask("busy", tokens=5)
        await w.advance(1.0)
        woken = w.begin(w.fleet.wake("a"))
        await w.advance(1.0)
        assert told(w, "a") == (State.COLD, "room") and w.fleet.status_of("a").queued == 0
        await w.advance(4.0)
        assert woken.done() and told(w, "a") == (State.AWAKE, None)


async def test_a_turn_while_another_waits_and_room_when_it_has_it() -> None:
    specs = {"busy": FakeSpec(token_seconds=1.0), "a": FakeSpec(token_seconds=1.0)}
    async with world(specs, **ONE_AT_A_TIME, turns=TurnConfig(min_awake=0.0, turn=4.0)) as w:
        w.ask("busy", tokens=100)
        await w.advance(1.0)
        w.ask("a", tokens=100)
        await w.advance(4.1)
        assert told(w, "busy") == (State.DRAINING, None)
        w.ask("busy")
        await w.advance()
        assert told(w, "busy") == (State.DRAINING, "turn")
        assert told(w, "a") == (State.COLD, "room")
        await w.advance(2.0)
        assert told(w, "a") == (State.AWAKE, None)
        assert told(w, "busy") == (State.ASLEEP, "room")


async def test_what_is_suspended_waits_though_nobody_is_queued() -> None:
    specs = {"busy": FakeSpec(token_seconds=1.0), "a": FakeSpec(token_seconds=1.0)}
    async with world(specs, **ONE_AT_A_TIME, turns=TurnConfig(min_awake=0.0, turn=4.0)) as w:
        w.ask("busy", tokens=100)
        await w.advance(1.0)
        w.ask("a", tokens=100)
        await w.advance(6.0)
        assert told(w, "busy") == (State.ASLEEP, "room") and w.fleet.status_of("busy").queued == 0


async def test_a_place_at_a_model_that_has_all_it_runs() -> None:
    limits: dict[str, Any] = {"max_running": 2}
    async with world({"a": FakeSpec(token_seconds=1.0)}, a=limits) as w:
        for _ in range(3):
            w.ask("a", tokens=2)
        await w.advance(0.5)
        assert told(w, "a") == (State.AWAKE, "place")
        await w.advance(2.0)
        assert told(w, "a") == (State.AWAKE, None)
