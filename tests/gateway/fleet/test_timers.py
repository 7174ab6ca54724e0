"""Timers on APScheduler: late after a stall, never early, never lost, whatever the wall clock does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, tzinfo

import apscheduler.schedulers.base
import pytest

from gateway.config import Config, MemoryConfig, ModelConfig, Size
from gateway.fleet import Fleet, SchedulerTimers, State, VirtualTimers, idle
from tests.fake_engine import FakeBackend, FakeSpec

STALL = 1.6
"""Seconds: after them every timer of these tests is later than APScheduler's own grace of one."""


@pytest.fixture
async def timers() -> AsyncIterator[SchedulerTimers]:
    timers = SchedulerTimers()
    yield timers
    timers.close()


class WallClock:
    """The system's date, which somebody may set."""

    offset = 0.0

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = self

        class SteppedDatetime(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> datetime:
                return datetime.now(tz) + timedelta(seconds=clock.offset)

        class SteppedTime:
            monotonic = staticmethod(time.monotonic)

            @staticmethod
            def time() -> float:
                return time.time() + clock.offset

        monkeypatch.setattr(apscheduler.schedulers.base, "datetime", SteppedDatetime)
        monkeypatch.setattr(idle, "datetime", SteppedDatetime)
        monkeypatch.setattr(idle, "time", SteppedTime)
        monkeypatch.setattr(idle, "CLOCK_CHECK", 0.05)


async def test_callback_runs_once_at_its_time(timers: SchedulerTimers) -> None:
    due = timers.now() + 0.05
    fired: list[float] = []
    timers.at("key", due, lambda: fired.append(timers.now()))
    await asyncio.sleep(0.2)
    assert len(fired) == 1
    assert fired[0] >= due


async def test_same_key_replaces(timers: SchedulerTimers) -> None:
    fired: list[str] = []
    timers.at("key", timers.now() + 0.02, lambda: fired.append("first"))
    timers.at("key", timers.now() + 0.05, lambda: fired.append("second"))
    timers.at("other", timers.now() + 0.02, lambda: fired.append("other"))
    timers.at("gone", timers.now() + 0.02, lambda: fired.append("gone"))
    timers.cancel("gone")
    timers.cancel("unknown")
    await asyncio.sleep(0.2)
    assert fired == ["other", "second"]


async def test_stalled_loop_delays_but_loses_nothing(timers: SchedulerTimers) -> None:
    fired: list[int] = []
    for number in range(3):
        timers.at(f"{number}", timers.now() + 0.1 + number / 10, lambda number=number: fired.append(number))
    await asyncio.sleep(0)
    time.sleep(STALL)  # noqa: ASYNC251
    await asyncio.sleep(0.1)
    assert sorted(fired) == [0, 1, 2]


async def test_callback_may_arm_its_own_timer_for_now(timers: SchedulerTimers) -> None:
    fired: list[float] = []

    def again() -> None:
        fired.append(timers.now())
        if len(fired) < 20:
            timers.at("key", timers.now(), again)

    timers.at("key", timers.now(), again)
    await asyncio.sleep(0.3)
    assert len(fired) == 20


@pytest.mark.parametrize("step", [3600.0, -3600.0])
async def test_step_of_the_wall_clock_changes_nothing(monkeypatch: pytest.MonkeyPatch, step: float) -> None:
    clock = WallClock(monkeypatch)
    timers = SchedulerTimers()
    due = timers.now() + 0.4
    fired: list[float] = []
    timers.at("key", due, lambda: fired.append(timers.now()))
    await asyncio.sleep(0.02)
    clock.offset = step
    timers.at("wakes the scheduler", timers.now(), lambda: None)
    await asyncio.sleep(0.8)
    timers.close()
    assert len(fired) == 1
    assert due <= fired[0] < due + 0.2


async def test_nothing_fires_after_close(timers: SchedulerTimers) -> None:
    fired: list[int] = []
    timers.at("before", timers.now() + 0.02, lambda: fired.append(1))
    timers.close()
    timers.at("after", timers.now() + 0.02, lambda: fired.append(2))
    await asyncio.sleep(0.1)
    assert fired == []


def a_fleet(timers: SchedulerTimers) -> Fleet:
    limits = MemoryConfig(device_limit=Size(share=1.0), host_limit=Size(share=1.0))
    model = ModelConfig(name="a", path="a", idle_timeout=0.25)
    return Fleet(Config(models=(model,), memory=limits), timers, backend=FakeBackend({"a": FakeSpec()}))


async def test_model_sleeps_within_one_and_a_half_timeouts() -> None:
    timers = SchedulerTimers()
    fleet = a_fleet(timers)
    for _ in range(4):
        async with fleet.lease("a"):
            pass
        await asyncio.sleep(0.2)
        assert fleet.status_of("a").state is State.AWAKE
        await asyncio.sleep(0.175)
        assert fleet.status_of("a").state is State.ASLEEP
    await fleet.close()


async def test_model_sleeps_though_the_loop_stalled_when_it_was_due() -> None:
    timers = SchedulerTimers()
    fleet = a_fleet(timers)
    async with fleet.lease("a"):
        pass
    await asyncio.sleep(0.05)
    assert fleet.status_of("a").sleeps_in_seconds
    time.sleep(STALL)  # noqa: ASYNC251
    await asyncio.sleep(0.1)
    assert fleet.status_of("a").state is State.ASLEEP
    await fleet.close()


async def test_virtual_clock_runs_timers_in_their_order() -> None:
    timers = VirtualTimers()
    start = timers.now()
    seen: list[tuple[str, float]] = []

    async def sleeper() -> None:
        await timers.sleep(2.0)
        seen.append(("slept", timers.now() - start))

    sleeping = asyncio.create_task(sleeper())
    timers.at("b", start + 3.0, lambda: seen.append(("b", timers.now() - start)))
    timers.at("a", start + 1.0, lambda: seen.append(("a", timers.now() - start)))
    timers.at("far", start + 10.0, lambda: seen.append(("far", timers.now() - start)))
    await timers.advance(5.0)
    assert seen == [("a", 1.0), ("slept", 2.0), ("b", 3.0)]
    assert timers.now() == start + 5.0
    assert sleeping.done()
