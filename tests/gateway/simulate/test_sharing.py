"""Work shared among jobs takes the time that was worked out."""

from __future__ import annotations

import asyncio

import pytest

from gateway.fleet import VirtualTimers
from gateway.simulate.sharing import Job, Shared


class Disk:
    """Ten units a second, for all jobs together."""

    def __init__(self) -> None:
        self.timers = VirtualTimers()
        self.shared = Shared(self.timers, "disk", lambda: 10.0 / self.shared.jobs)
        self.begun = self.timers.now()
        self.ended: dict[str, tuple[float, float]] = {}
        """By name: after how many seconds, and units done."""

    def read(self, name: str, amount: float) -> tuple[Job, asyncio.Task[None]]:
        job = Job()

        async def work() -> None:
            done = await self.shared.work(amount, job)
            self.ended[name] = (self.timers.now() - self.begun, done)

        return job, asyncio.create_task(work())


async def test_jobs_share_the_speed_while_they_overlap() -> None:
    disk = Disk()
    disk.read("long", 100.0)
    await disk.timers.advance(2.0)
    disk.read("short", 20.0)
    await disk.timers.advance(60.0)
    assert disk.ended["short"] == pytest.approx((2.0 + 4.0, 20.0))
    assert disk.ended["long"] == pytest.approx((12.0, 100.0))


async def test_a_stopped_job_tells_how_far_it_came() -> None:
    disk = Disk()
    job, _ = disk.read("stopped", 100.0)
    disk.read("other", 30.0)
    await disk.timers.advance(4.0)
    job.stop()
    await disk.timers.advance(60.0)
    assert disk.ended["stopped"] == pytest.approx((4.0, 20.0))
    assert disk.ended["other"] == pytest.approx((5.0, 30.0)), "it has the disk for itself at the end"


async def test_a_job_whose_task_is_cancelled_leaves_the_speed_to_others() -> None:
    disk = Disk()
    _, task = disk.read("cancelled", 100.0)
    disk.read("other", 30.0)
    await disk.timers.advance(4.0)
    task.cancel()
    await disk.timers.advance(60.0)
    assert disk.ended == {"other": pytest.approx((5.0, 30.0))}
    assert disk.shared.jobs == 0


async def test_all_of_a_job_is_done_however_the_clock_rounds() -> None:
    disk = Disk()
    for number in range(50):
        disk.read(f"{number}", 0.1 + number / 7)
        await disk.timers.advance(0.01 / 3)
    await disk.timers.advance(1000.0)
    assert [disk.ended[f"{number}"][1] for number in range(50)] == [0.1 + number / 7 for number in range(50)]


async def test_time_passes_only_when_nothing_is_left_to_run() -> None:
    """However many turns of the loop what a timer began takes."""
    timers = VirtualTimers()
    ended = []

    async def chain() -> None:
        for _ in range(200):
            await asyncio.sleep(0)
        ended.append(timers.now())

    tasks = []
    timers.at("begin", timers.now() + 1.0, lambda: tasks.append(asyncio.create_task(chain())))
    timers.at("later", timers.now() + 2.0, lambda: ended.append(-1.0))
    begun = timers.now()
    await timers.advance(3.0)
    assert ended == [begun + 1.0, -1.0]
