"""The fleet seen from its handlers: names, opening, readiness, status, memory, events."""

from __future__ import annotations

import asyncio
import math

import pytest

from engine import CheckpointError, DeviceError, EngineError, MemoryState, Progress
from gateway.config import Config, ModelConfig
from gateway.errors import ApiError, ModelNotFound, ModelWakeFailed
from gateway.fleet import Fleet, State, Transition, VirtualTimers
from tests.fake_engine import MIB, FakeBackend, FakeSpec
from tests.gateway.fleet.world import world


async def test_names_and_aliases() -> None:
    async with world({"a": FakeSpec(), "b": FakeSpec()}, a={"aliases": ("gpt-4o-mini", "small")}) as w:
        assert w.fleet.resolve("gpt-4o-mini") is w.fleet.resolve("a")
        async with w.fleet.lease("small") as lease:
            assert lease.engine is w.engine("a")
        with pytest.raises(ModelNotFound, match=r"`gpt-5`.*a, b"):
            w.fleet.resolve("gpt-5")
        for call in (w.fleet.opened, w.fleet.sleep, w.fleet.wake, w.fleet.reload_weights):
            with pytest.raises(ModelNotFound):
                await call("gpt-5")
        with pytest.raises(ModelNotFound):
            async with w.fleet.lease("gpt-5"):
                pass


async def test_engine_is_opened_once_and_off_the_loop() -> None:
    async with world({"a": FakeSpec()}, open_first=False) as w:
        opened = await asyncio.gather(*(w.fleet.opened("a") for _ in range(20)))
        assert len({id(engine) for engine in opened}) == 1
        assert w.state("a") == (State.COLD, None)
        assert w.engine("a").calls == []


async def test_who_leaves_while_it_is_opened_does_not_stop_the_opening() -> None:
    async with world({"a": FakeSpec()}, open_first=False) as w:
        leaving = w.begin(w.fleet.opened("a"))
        await asyncio.sleep(0)
        leaving.cancel()
        assert await w.fleet.opened("a") is w.engine("a")


@pytest.mark.parametrize("step", ["open", "estimate"])
async def test_checkpoint_that_cannot_be_opened_fails_and_recovers(step: str) -> None:
    async with world({"a": FakeSpec(), "b": FakeSpec()}, open_first=False) as w:
        w.spec("a").failures[step] = [CheckpointError("/srv/a: no config", reason="config.json is missing")]  # type: ignore[index]
        for _ in range(3):
            with pytest.raises(ModelWakeFailed, match=r"config\.json is missing") as caught:
                await w.fleet.opened("a")
            assert "/srv" not in caught.value.message
            assert caught.value.retry_after == 5.0
        assert w.state("a") == (State.FAILED, None)
        with pytest.raises(ModelWakeFailed):
            async with w.fleet.lease("a"):
                pass
        await w.fleet.opened("b")
        await w.advance(5.0)
        assert (await w.fleet.opened("a")).info.max_model_len == 4096
        await w.answered("a")


async def test_device_that_is_not_there_fails_that_model_only(caplog: pytest.LogCaptureFixture) -> None:
    class OneDevice(FakeBackend):
        def memory_state(self, device: str = "cpu") -> MemoryState:
            if device.startswith("cuda"):
                raise EngineError(f"no such device here: {device}")
            return super().memory_state(device)

    timers = VirtualTimers()
    backend = OneDevice({"a": FakeSpec(), "b": FakeSpec()}, sleep=timers.sleep)
    models = (ModelConfig(name="a", path="a", device="cuda"), ModelConfig(name="b", path="b"))
    fleet = Fleet(Config(models=models), timers, backend=backend)
    with pytest.raises(ModelWakeFailed):
        await fleet.opened("a")
    async with fleet.lease("b"):
        assert fleet.memory()["device"]["used"] == 111 * MIB
    await fleet.close()
    [told] = [record for record in caplog.records if "cannot be opened" in record.message]
    assert told.message == "a: cannot be opened: no such device here: cuda"
    assert not told.exc_info  # a line, not a traceback


async def test_preloads_decide_when_it_is_ready() -> None:
    specs = {"a": FakeSpec(wake_seconds=2.0), "b": FakeSpec(), "c": FakeSpec()}
    specs["b"].failures["wake"] = [CheckpointError("gone")]
    preload = {"preload": True}
    async with world(specs, a=preload, b=preload) as w:
        assert not w.fleet.ready
        await w.advance(1.0)
        assert w.state("b")[0] is State.FAILED
        assert not w.fleet.ready
        await w.advance(2.0)
        assert w.fleet.ready
        assert w.state("a") == (State.AWAKE, None)
        assert w.state("c") == (State.COLD, None)
        assert w.engine("c").calls == []


async def test_status_tells_all_of_a_model() -> None:
    spec = FakeSpec(wake_seconds=2.0, token_seconds=1.0)
    async with world({"a": spec}, a={"idle_timeout": 10.0, "aliases": ("x",)}) as w:
        cold = w.fleet.status_of("x")
        assert (cold.name, cold.aliases, cold.state, cold.level) == ("a", ("x",), State.COLD, None)
        assert (cold.idle_seconds, cold.sleeps_in_seconds, cold.last_wake) == (None, None, None)
        assert (cold.weights_bytes, cold.device_bytes, cold.max_model_len) == (100 * MIB, 0, 4096)
        asked = w.ask("a", tokens=2)
        await w.advance(1.0)
        w.engine("a").now_doing = Progress(phase="read", done=1, total=2)
        waking = w.fleet.status_of("a")
        assert (waking.state, waking.in_flight, waking.queued) == (State.WAKING, 1, 1)
        assert waking.progress == Progress(phase="read", done=1, total=2)
        await w.advance(2.5)
        busy = w.fleet.status_of("a")
        assert (busy.state, busy.in_flight, busy.queued) == (State.AWAKE, 1, 0)
        assert (busy.idle_seconds, busy.sleeps_in_seconds) == (None, None)
        await w.advance(1.5)
        asked.result()
        idle = w.fleet.status_of("a")
        assert idle.idle_seconds == pytest.approx(1.0)
        assert idle.sleeps_in_seconds == pytest.approx(9.0)
        assert (idle.kv_bytes, idle.device_bytes) == (10 * MIB, 111 * MIB)
        assert idle.last_wake is not None
        assert (idle.last_wake.seconds, idle.last_wake.bytes) == (2.0, 110 * MIB)
        assert (idle.last_wake.level, idle.last_wake.cause) == (None, "request")
        assert idle.last_wake.phases["read"] == 2.0
        await w.advance(10.0)
        asleep = w.fleet.status()[0]
        assert (asleep.state, asleep.level, asleep.sleeps_in_seconds) == (State.ASLEEP, 1, None)
        assert (asleep.host_bytes, asleep.kv_bytes) == (100 * MIB, 0)
        await w.answered("a", keep_alive=math.inf)
        again = w.fleet.status_of("a")
        assert again.sleeps_in_seconds is None
        assert again.last_wake is not None
        assert again.last_wake.level == 1


async def test_memory_of_device_and_host() -> None:
    async with world({"a": FakeSpec()}, device_limit=800 * MIB, host_limit=500 * MIB) as w:
        await w.answered("a")
        assert w.fleet.memory()["device"] == {
            "total": 1000 * MIB,
            "limit": 800 * MIB,
            "used": 111 * MIB,
            "available": 889 * MIB,
        }
        await w.fleet.sleep("a", 1)
        assert w.fleet.memory()["host"]["used"] == 100 * MIB
        assert w.fleet.memory()["host"]["limit"] == 500 * MIB


async def test_kv_of_an_engine_leaves_room_for_its_weights() -> None:
    """All that the device has, since ``device_limit`` may be raised while the engine is open."""
    async with world({"a": FakeSpec()}, device_limit=800 * MIB) as w:
        assert w.engine("a").options.device_limit == 800 * MIB
        assert w.engine("a").options.kv_limit == 900 * MIB


async def test_an_engine_is_told_what_it_may_lock_of_the_hosts_memory_and_whether_to_begin_with_it() -> None:
    specs = {name: FakeSpec() for name in "ab"}
    async with world(specs, shared=False, host_limit=500 * MIB, b={"level": 2}) as w:
        options = [w.engine(name).options for name in "ab"]
        assert [each.host_limit for each in options] == [500 * MIB] * 2
        assert [each.copy_early for each in options] == [True, False]


async def test_fault_of_an_engine_is_told() -> None:
    async with world({"a": FakeSpec(), "b": FakeSpec()}) as w:
        assert w.fleet.fault() is None
        w.engine("b").fault_reason = "a step has run for 60 s"
        assert w.fleet.fault() == ("b", "a step has run for 60 s")


@pytest.mark.parametrize("step", ["wake", "generate"])
async def test_lost_device_is_told(step: str) -> None:
    async with world({"a": FakeSpec()}) as w:
        assert w.fleet.device_lost is None
        w.spec("a").failures[step] = [DeviceError("an illegal access")]  # type: ignore[index]
        asked = w.ask("a")
        await w.advance(1.0)
        assert asked.exception() is not None
        assert w.fleet.device_lost == "an illegal access"


async def test_events_are_told_in_order_until_unsubscribed() -> None:
    async with world({"a": FakeSpec(wake_seconds=1.0)}, a={"idle_timeout": 5.0}) as w:
        seen: list[Transition] = []
        unsubscribe = w.fleet.events.subscribe(seen.append)
        await w.answered("a")
        await w.advance(6.0)
        told = [(event.before.value, event.after.value, event.level, event.cause) for event in seen]
        assert told == [
            ("cold", "waking", None, "request"),
            ("waking", "awake", None, "request"),
            ("awake", "draining", None, "idle"),
            ("draining", "asleep", 1, "idle"),
        ]
        assert (seen[1].seconds, seen[1].bytes) == (1.0, 110 * MIB)
        unsubscribe()
        await w.answered("a")
        assert len(seen) == 4
        assert len(w.fleet.events.history) > 4


async def test_sleep_that_fails_is_told_and_does_not_wedge() -> None:
    async with world({"a": FakeSpec()}) as w:
        await w.answered("a")
        w.spec("a").failures["sleep"] = [DeviceError("lost")]
        sleeping = w.begin(w.fleet.sleep("a", 2))
        await w.advance(0.1)
        assert sleeping.exception() is not None
        await w.advance(10.0)
        await w.answered("a")
        assert await w.fleet.sleep("a", 2) == 2


async def test_failing_trim_does_not_harm_an_awake_model() -> None:
    async with world({"a": FakeSpec(weights=300 * MIB), "b": FakeSpec(weights=600 * MIB)}) as w:
        await w.answered("a")
        w.engine("a").kv = 150 * MIB
        w.spec("a").failures["trim_kv"] = [RuntimeError("a bug")]
        await w.answered("b")
        assert w.state("a") == (State.ASLEEP, 2), "room was made in another way"


async def test_kv_grown_over_the_limit_is_given_back() -> None:
    async with world({"a": FakeSpec(), "b": FakeSpec()}, device_limit=400 * MIB) as w:
        await w.answered("a")
        await w.answered("b")
        w.engine("b").kv = 300 * MIB
        await w.advance(2.0)
        await w.answered("a")
        await w.advance(0.1)
        assert w.device_bytes() <= 400 * MIB
        assert (w.state("a")[0], w.state("b")[0]) == (State.AWAKE, State.AWAKE)


async def test_close_gives_everything_back() -> None:
    async with world({"a": FakeSpec(wake_seconds=5.0), "b": FakeSpec(token_seconds=1.0)}) as w:
        waking, running = w.ask("a"), w.ask("b")
        await w.advance(2.0)
        sleeping = w.begin(w.fleet.sleep("b"))
        await w.advance()
        await w.fleet.close()
        running.cancel()
        waking.cancel()
        ended = await asyncio.gather(running, waking, sleeping, return_exceptions=True)
        assert all(isinstance(error, asyncio.CancelledError | ApiError) for error in ended)
        assert w.device_bytes() == 2 * MIB, "what the engines themselves keep"
        assert w.engine("a").closed
        assert w.engine("b").closed


async def test_who_waits_for_a_sleep_by_hand_is_told_when_the_fleet_closes() -> None:
    async with world({"a": FakeSpec(token_seconds=1.0)}) as w:
        w.ask("a", tokens=100)
        await w.advance(2.0)
        slept = w.begin(w.fleet.sleep("a"))
        await w.advance(1.0)
        assert not slept.done()
        await w.fleet.close()
        assert isinstance(slept.exception(), ApiError)
