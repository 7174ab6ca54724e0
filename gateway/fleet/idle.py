"""Timers and the idle rule.

A model that may fall asleep has one timer. A request only stamps a monotonic clock; the timer, when due,
compares stamps (``Deadlines``) and tells that the model is due, or is armed anew: firing early does no harm.
``Timers`` has two implementations: APScheduler, and a virtual clock.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

from apscheduler.schedulers.asyncio import AsyncIOScheduler

Callback = Callable[[], None]

logging.getLogger("apscheduler").setLevel(logging.WARNING)

CLOCK_CHECK = 10.0
CLOCK_STEP = 0.5
LONGEST_CHAIN = 1000
"""Turns of the loop after which something is taken to run for ever."""


class Timers(Protocol):
    """One-shot timers by key, on the clock that ``now`` reads. Callbacks run on the loop."""

    def now(self) -> float: ...

    def at(self, key: str, when: float, callback: Callback) -> None:
        """Call ``callback`` at ``when``, never before; replaces the timer of the same key."""

    def cancel(self, key: str) -> None: ...

    def close(self) -> None: ...


class Deadlines:
    """One timer for each model that has a deadline.

    ``deadline`` reads the model's stamps: when it is due if nothing happens till then; None: not at all.
    """

    def __init__(
        self,
        timers: Timers,
        prefix: str,
        deadline: Callable[[str], float | None],
        due: Callable[[str], None],
    ) -> None:
        self._timers = timers
        self._prefix = prefix
        self._deadline = deadline
        self._due = due
        self._armed: dict[str, float] = {}

    def arm(self, name: str) -> None:
        """To be called when a deadline has come to be or come nearer; one put off needs no call."""
        deadline = self._deadline(name)
        if deadline is not None and deadline < self._armed.get(name, math.inf):
            self._armed[name] = deadline
            self._timers.at(f"{self._prefix}:{name}", deadline, lambda: self._fire(name))

    def _fire(self, name: str) -> None:
        del self._armed[name]
        deadline = self._deadline(name)
        if deadline is not None and deadline <= self._timers.now():
            self._due(name)
        else:
            self.arm(name)


class SchedulerTimers:
    """Timers on APScheduler, told in monotonic seconds.

    APScheduler keeps wall-clock dates. When that clock steps, all dates are computed anew.
    """

    def __init__(self) -> None:
        self._scheduler: AsyncIOScheduler | None = None
        self._timers: dict[str, tuple[float, Callback]] = {}
        self._offset = 0.0
        self._watch: asyncio.TimerHandle | None = None
        self._closed = False

    def now(self) -> float:
        return time.monotonic()

    def at(self, key: str, when: float, callback: Callback) -> None:
        if not self._closed:
            self._timers[key] = (when, callback)
            self._schedule(key, when)

    def cancel(self, key: str) -> None:
        if self._timers.pop(key, None) and self._scheduler and self._scheduler.get_job(key):
            self._scheduler.remove_job(key)

    def close(self) -> None:
        self._closed = True
        self._timers.clear()
        if self._watch:
            self._watch.cancel()
        if self._scheduler:
            self._scheduler.remove_all_jobs()
            self._scheduler.shutdown(wait=False)
            self._scheduler = None

    def _schedule(self, key: str, when: float) -> None:
        delay = timedelta(seconds=max(0.0, when - self.now()))
        self._started().add_job(
            self._fire,
            "date",
            args=(key,),
            id=key,
            run_date=datetime.now(UTC) + delay,
            misfire_grace_time=None,
            coalesce=True,
            replace_existing=True,
            # A callback may arm its own timer again while APScheduler still counts it as running; with the
            # usual limit of one instance that new one-shot job would be dropped.
            max_instances=1_000_000,
        )

    async def _fire(self, key: str) -> None:
        if key not in self._timers:
            return
        when, callback = self._timers[key]
        if when > self.now():
            self._schedule(key, when)
            return
        del self._timers[key]
        callback()

    def _started(self) -> AsyncIOScheduler:
        if self._scheduler is None:
            self._scheduler = AsyncIOScheduler(timezone=UTC)
            self._scheduler.start()
            self._offset = time.time() - time.monotonic()
            self._watch_clock()
        return self._scheduler

    def _watch_clock(self) -> None:
        offset = time.time() - time.monotonic()
        if abs(offset - self._offset) > CLOCK_STEP:
            self._offset = offset
            for key, (when, _) in self._timers.items():
                self._schedule(key, when)
        self._watch = asyncio.get_running_loop().call_later(CLOCK_CHECK, self._watch_clock)


class VirtualTimers:
    """A clock that moves only when told, for tests and simulations."""

    def __init__(self) -> None:
        self._now = 1000.0
        self._order = itertools.count()
        self._heap: list[tuple[float, int, str]] = []
        self._timers: dict[str, tuple[int, Callback]] = {}

    def now(self) -> float:
        return self._now

    def at(self, key: str, when: float, callback: Callback) -> None:
        number = next(self._order)
        self._timers[key] = (number, callback)
        heapq.heappush(self._heap, (when, number, key))

    def cancel(self, key: str) -> None:
        self._timers.pop(key, None)

    def close(self) -> None:
        self._timers.clear()
        self._heap.clear()

    async def sleep(self, seconds: float) -> None:
        """As ``asyncio.sleep``, on this clock."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        wake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        key = f"sleep:{next(self._order)}"
        self.at(key, self._now + seconds, lambda: None if wake.done() else wake.set_result(None))
        try:
            await wake
        finally:
            self.cancel(key)

    async def advance(self, seconds: float = 0.0) -> None:
        """Let time pass, running every timer on its way and all that follows from it."""
        end = self._now + seconds
        await settle()
        while self._heap and self._heap[0][0] <= end:
            await self._fire_first()
        self._now = end

    async def advance_to_next(self) -> None:
        """Let time pass until one timer has run, and all that follows from it."""
        await settle()
        while self._heap and not await self._fire_first():
            pass

    async def _fire_first(self) -> bool:
        """False when the first timer has been replaced or cancelled."""
        when, number, key = heapq.heappop(self._heap)
        if self._timers.get(key, (None,))[0] != number:
            return False
        self._now = max(self._now, when)
        _, callback = self._timers.pop(key)
        callback()
        await settle()
        return True


async def settle() -> None:
    """Let everything on the loop run that needs no time to pass."""
    ready = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]  # nothing public tells
    for _ in range(LONGEST_CHAIN):
        await asyncio.sleep(0)
        if not ready:
            return
