"""Host memory that is locked in RAM, so that the device copies from it by itself, at the speed of the link.

The driver locks pages on one thread, and takes its time over those that are not there yet. So the memory is
taken by several threads first, in huge pages, and locked once for as long as it is used.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from engine.memory.budget import Budget
from engine.memory.cpu import CpuArena
from engine.memory.driver import Driver, DriverError
from engine.memory.parallel import run_all
from engine.memory.system import SystemMemory, system
from engine.types import OutOfMemory

_PART: Final = 64 * 2**20
"""What a thread takes at a time."""


class LockedMemory:
    """``size`` bytes of RAM, rounded up to whole huge pages, under a fixed address until ``close``."""

    def __init__(
        self, driver: Driver, size: int, *, memory: SystemMemory = system, budget: Budget | None = None
    ) -> None:
        """``budget``: counts it. Raises OutOfMemory, having taken nothing."""
        self._driver = driver
        self._arena = CpuArena(size, memory=memory, budget=budget)
        self.size = self._arena.size
        self.address = self._arena.address
        self.tensor = self._arena.tensor
        """uint8 [size]."""
        self._locked = False
        try:
            with self._arena.commit(0, self.size):
                self._populate()
                self._lock(memory)
        except BaseException:
            self._arena.close()
            raise

    def _populate(self) -> None:
        starts = range(0, self.size, _PART)
        run_all(partial(self._arena.populate, at, min(_PART, self.size - at)) for at in starts)

    def _lock(self, memory: SystemMemory) -> None:
        self._driver.make_current()
        try:
            self._driver.host_register(self.address, self.size)
        except DriverError as error:
            if error.out_of_memory:
                raise OutOfMemory(self.size, max(0, memory.state().available)) from error
            raise
        self._locked = True

    def close(self) -> None:
        """No copy from it may be under way, and nothing may touch the tensor any more."""
        if self._locked:
            self._driver.make_current()
            self._driver.host_unregister(self.address)
            self._locked = False
            self._arena.close()
