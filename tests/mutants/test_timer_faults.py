"""The checks of the timers are able to fail: with APScheduler's own defaults, or a trusted wall clock."""

from __future__ import annotations

from typing import Any

import pytest
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from gateway.fleet import SchedulerTimers
from tests.gateway.fleet import test_timers


def with_default(monkeypatch: pytest.MonkeyPatch, setting: str, value: object) -> None:
    add_job = AsyncIOScheduler.add_job

    def add(self: AsyncIOScheduler, *args: Any, **settings: Any) -> Any:
        return add_job(self, *args, **(settings | {setting: value}))

    monkeypatch.setattr(AsyncIOScheduler, "add_job", add)


async def test_grace_of_a_second_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    with_default(monkeypatch, "misfire_grace_time", 1)
    with pytest.raises(AssertionError):
        await test_timers.test_model_sleeps_though_the_loop_stalled_when_it_was_due()


async def test_one_instance_at_a_time_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    with_default(monkeypatch, "max_instances", 1)
    timers = SchedulerTimers()
    with pytest.raises(AssertionError):
        await test_timers.test_callback_may_arm_its_own_timer_for_now(timers)
    timers.close()


@pytest.mark.parametrize("step", [3600.0, -3600.0])
async def test_trust_in_the_wall_clock_is_caught(monkeypatch: pytest.MonkeyPatch, step: float) -> None:
    async def fire(self: SchedulerTimers, key: str) -> None:
        self._timers.pop(key)[1]()

    monkeypatch.setattr(SchedulerTimers, "_fire", fire)
    monkeypatch.setattr(SchedulerTimers, "_watch_clock", lambda self: None)
    with pytest.raises(AssertionError):
        await test_timers.test_step_of_the_wall_clock_changes_nothing(monkeypatch, step)
