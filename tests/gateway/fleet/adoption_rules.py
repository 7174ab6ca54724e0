"""The rules of new files for a model that there is, each as a check that fails when it is broken."""

from __future__ import annotations

import pytest

from engine import CheckpointError, DeviceError
from gateway.config import TurnConfig
from gateway.errors import ApiError, FilesRefused, ModelWakeFailed
from gateway.fleet import State, Transition
from tests.fake_engine import MIB, FakeSpec
from tests.gateway.fleet.rules import AWAKE, rule, two_that_do_not_fit
from tests.gateway.fleet.world import World, world


def write_new_files(w: World, name: str = "a") -> None:
    w.spec(name).reply = "Anew"


async def adopted(w: World, name: str | None = "a", *, within: float = 10.0) -> None:
    """Ask for it and let time pass. Raises what that raises."""
    asked = w.begin(w.fleet.reload_weights(name))
    end = w.timers.now() + within
    while not asked.done() and w.timers.now() < end:
        await w.advance(0.1)
    assert asked.done(), "not in time"
    asked.result()


@rule
async def files_are_adopted_when_what_is_in_flight_is_over() -> None:
    async with world({"a": FakeSpec(wake_seconds=2.0, token_seconds=1.0)}) as w:
        seen: list[Transition] = []
        streaming = w.ask("a", tokens=5)
        await w.advance(4.0)
        w.fleet.events.subscribe(seen.append)
        write_new_files(w)
        asked = w.begin(w.fleet.reload_weights("a"))
        await w.advance()
        newcomer = w.ask("a", tokens=4)
        await w.advance(2.0)
        assert w.state("a")[0] is State.DRAINING
        assert not asked.done()
        await w.advance(2.0)
        assert streaming.result().text == "Hello"
        assert not asked.done(), "it takes as long as a wake"
        await w.advance(2.0)
        asked.result()
        assert w.state("a") == AWAKE
        await w.advance(5.0)
        assert newcomer.result().text == "Anew"
        assert (w.calls("a", "wake"), w.calls("a", "sleep")) == (1, 0)
        told = [(event.before, event.after, event.cause) for event in seen]
        assert told == [(State.AWAKE, State.DRAINING, "manual"), (State.DRAINING, State.AWAKE, "manual")]
        assert (seen[1].seconds, seen[1].bytes) == (2.0, 100 * MIB)


@rule
async def who_sleeps_adopts_files_asleep() -> None:
    names = ("cold", "light", "deep")
    async with world({name: FakeSpec() for name in names}) as w:
        for level, name in enumerate(names[1:], start=1):
            await w.answered(name)
            await w.fleet.sleep(name, level)  # type: ignore[arg-type]
        before = [w.state(name) for name in names]
        for name in names:
            write_new_files(w, name)
        await adopted(w, None)
        assert [w.state(name) for name in names] == before
        assert sum(w.calls(name, "wake") for name in names) == 2
        assert "load" not in w.engine("cold").calls, "what is not loaded has nothing to adopt"
        for name in names:
            assert (await w.answered(name)).text == "Anewx"


@rule
async def files_are_adopted_between_the_two_tags_of_a_wake() -> None:
    async with world({"a": FakeSpec()}) as w:
        await w.answered("a")
        await w.fleet.sleep("a", 2)
        assert not await w.fleet.wake("a", frozenset({"weights"}))
        write_new_files(w)
        await adopted(w)
        assert w.state("a") == (State.ASLEEP, 2)
        assert w.engine("a").weights == 100 * MIB
        assert await w.fleet.wake("a", frozenset({"kv_cache"}))
        assert (await w.answered("a")).text == "Anewx"
        assert w.calls("a", "wake") == 3


@rule
async def files_that_do_not_fit_change_nothing() -> None:
    async with world({"a": FakeSpec(token_seconds=0.5), "b": FakeSpec()}) as w:
        streaming = w.ask("a", tokens=5)
        await w.answered("b")
        await w.fleet.sleep("b", 1)
        await w.advance(1.0)
        for name in ("a", "b"):
            write_new_files(w, name)
            error = CheckpointError("/srv/a: other shapes", reason="other shapes than before")
            w.spec(name).failures["reload_weights"] = [error]
        asked = w.begin(w.fleet.reload_weights("a"))
        await w.advance()
        newcomer = w.ask("a")
        with pytest.raises(FilesRefused, match="other shapes than before") as refused:
            await adopted(w, "b")
        assert "/srv" not in refused.value.message
        assert w.state("b") == (State.ASLEEP, 1)
        await w.advance(20.0)
        assert isinstance(asked.exception(), FilesRefused)
        assert streaming.result().text == "Hello"
        assert newcomer.result().text == "Hello from a: x"
        assert w.state("a") == AWAKE
        assert (await w.answered("b")).text == "Hello from b: x"
        assert w.calls("a", "wake") == 1


@rule
async def weights_lost_over_new_ones_are_a_failure_that_other_files_mend() -> None:
    async with world({"a": FakeSpec()}) as w:
        for error in (CheckpointError("/srv/a", reason="a read failed"), DeviceError("lost")):
            await w.answered("a")
            w.spec("a").failures["refill"] = [error]
            with pytest.raises(ModelWakeFailed, match="lost"):
                await adopted(w)
            assert w.state("a") == (State.FAILED, 2)
            assert w.device_bytes() == 1 * MIB
            refused = w.ask("a")
            await w.advance()
            assert isinstance(refused.exception(), ModelWakeFailed)
            await adopted(w)
            assert w.state("a") == (State.ASLEEP, 2)
            assert w.fleet.status_of("a").last_error is None
        await w.answered("a")


@rule
async def files_that_are_adopted_end_a_cool_down() -> None:
    async with world({"a": FakeSpec(), "b": FakeSpec()}) as w:
        await w.answered("b")
        await w.fleet.sleep("b", 2)
        for name in ("a", "b"):
            step = "load" if name == "a" else "wake"
            w.spec(name).failures[step] = [CheckpointError("/srv", reason="a file has changed")]  # type: ignore[index]
            asked = w.ask(name)
            await w.advance(0.1)
            assert isinstance(asked.exception(), ModelWakeFailed)
        w.spec("b").failures["reload_weights"] = [CheckpointError("/srv", reason="other shapes")]
        with pytest.raises(FilesRefused):
            await adopted(w, "b")
        assert w.state("b") == (State.FAILED, 2)
        await adopted(w, None)
        assert (w.state("a"), w.state("b")) == ((State.COLD, None), (State.ASLEEP, 2))
        for name in ("a", "b"):
            await w.fleet.opened(name)  # in a thread, which no virtual clock waits for
            assert (await w.answered(name)).waited < 1.0


@rule
async def adopting_waits_for_what_is_suspended() -> None:
    turns = TurnConfig(min_awake=0.0, turn=1.0)
    async with world(two_that_do_not_fit(token_seconds=0.5), turns=turns) as w:
        long = w.ask("a", tokens=100)
        await w.advance(2.0)
        other = w.ask("b", tokens=20)
        await w.advance(2.5)
        assert w.state("a")[0] is State.ASLEEP
        write_new_files(w)
        asked = w.begin(w.fleet.reload_weights("a"))
        await w.advance(1.0)
        assert not asked.done(), "something is in flight"
        await w.advance(40.0)
        assert long.result().text == "Hello from a: x"
        assert other.done() and asked.done()
        assert (await w.answered("a", within=5.0)).text == "Anewx"


@rule
async def adopting_comes_before_a_sleep_by_hand_and_after_a_wake() -> None:
    async with world({"a": FakeSpec(wake_seconds=1.0, token_seconds=0.5)}) as w:
        streaming = w.ask("a", tokens=5)
        await w.advance(0.5)
        adoption = w.begin(w.fleet.reload_weights("a"))
        await w.advance(0.1)
        assert w.state("a")[0] is State.WAKING
        await w.advance(1.0)
        slept = w.begin(w.fleet.sleep("a", 2))
        await w.advance(10.0)
        assert streaming.result().text == "Hello"
        adoption.result()
        assert slept.result() == 2
        assert w.state("a") == (State.ASLEEP, 2)
        assert [call for call in w.engine("a").calls if call in ("wake", "reload_weights", "sleep")] == [
            "wake",
            "reload_weights",
            "sleep",
        ]


@rule
async def who_asks_while_files_are_read_has_them_read_again() -> None:
    """What changed meanwhile may not have been seen; before they are read, one asks for all."""
    async with world({"a": FakeSpec(wake_seconds=1.0, token_seconds=0.5)}) as w:
        w.ask("a", tokens=5)
        await w.advance(2.0)
        early = [w.begin(w.fleet.reload_weights("a")) for _ in range(3)]
        await w.advance(2.0)
        assert w.engine("a").moving == "reload_weights"
        late = w.begin(w.fleet.reload_weights("a"))
        await w.advance(1.0)
        assert all(asked.done() for asked in early)
        assert not late.done()
        await w.advance(2.0)
        late.result()
        assert w.calls("a", "reload_weights") == 2


@rule
async def room_of_one_that_reads_its_files_again_stays_its_own() -> None:
    specs = {name: FakeSpec(weights=600 * MIB, wake_seconds=3.0) for name in ("a", "b")}
    async with world(specs) as w:
        await w.answered("a")
        write_new_files(w)
        asked = w.begin(w.fleet.reload_weights("a"))
        await w.advance(0.5)
        assert w.device_bytes() < 600 * MIB
        other = w.ask("b", tokens=1)
        await w.advance(1.0)
        assert w.calls("b", "wake") == 0
        await w.advance(2.0)
        asked.result()
        await w.advance(5.0)
        assert other.result().text == "H"
        assert (await w.answered("a")).text == "Anewx"


@rule
async def who_waits_for_an_adoption_is_told_when_the_fleet_closes() -> None:
    specs = {"a": FakeSpec(token_seconds=1.0), "b": FakeSpec(wake_seconds=5.0)}
    async with world(specs) as w:
        w.ask("a", tokens=100)
        await w.answered("b")
        waiting, reading = (w.begin(w.fleet.reload_weights(name)) for name in ("a", "b"))
        await w.advance(2.0)
        assert w.engine("b").moving == "reload_weights"
        await w.fleet.close()
        await w.advance()
        assert all(asked.done() and isinstance(asked.exception(), ApiError) for asked in (waiting, reading))
        assert "reload_weights" not in w.engine("a").calls
