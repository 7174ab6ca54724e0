"""Something that works on many jobs at once, at one speed for all: a disk, a bus, a device that steps its
engines in turn. Processor sharing, kept as one clock of work done per job, so that a job that comes or goes
costs a place in a heap and never a look at the others.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable

from gateway.fleet import Timers


class Job:
    """``joins`` is told 1 when it begins and -1 when it is over, for a speed that depends on what is under
    way."""

    def __init__(self, joins: Callable[[int], None] = lambda count: None) -> None:
        self.joins = joins
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def stop(self) -> None:
        if not self.over.done():
            self.over.set_result(None)


class Shared:
    """``speed`` tells the units of work a second that each job gets now, with at least one under way."""

    def __init__(self, timers: Timers, key: str, speed: Callable[[], float]) -> None:
        self.jobs = 0
        self._timers = timers
        self._key = key
        self._speed = speed
        self._done = 0.0
        self._at = timers.now()
        self._ends: list[tuple[float, int, Job]] = []
        self._order = itertools.count()

    async def work(self, amount: float, job: Job) -> float:
        """Return when ``amount`` units are done, or ``job`` is stopped: how many are done."""
        self._catch_up()
        self._join(job, 1)
        end = self._done + amount
        heapq.heappush(self._ends, (end, next(self._order), job))
        self._arm()
        try:
            await job.over
        finally:
            self._catch_up()
            self._join(job, -1)
            self._arm()
        return amount - max(0.0, end - self._done)

    def _join(self, job: Job, count: int) -> None:
        self.jobs += count
        job.joins(count)

    def _catch_up(self) -> None:
        now = self._timers.now()
        if self.jobs:
            self._done += (now - self._at) * self._speed()
        self._at = now

    def _arm(self) -> None:
        while self._ends and self._ends[0][2].over.done():
            heapq.heappop(self._ends)
        if self._ends:
            left = max(0.0, self._ends[0][0] - self._done)
            self._timers.at(self._key, self._at + left / self._speed(), self._fire)
        else:
            self._timers.cancel(self._key)

    def _fire(self) -> None:
        self._catch_up()
        # Whatever the rounding of the clock says, the first is what the timer was for.
        self._done = max(self._done, self._ends[0][0])
        while self._ends and self._ends[0][0] <= self._done:
            heapq.heappop(self._ends)[2].stop()
