"""The host's share in one device's models: locked copies of their weights, within a limit.

The copy of a model that is awake is spare: it makes the next sleep quick, and is given back when another
model needs the room. A sleeper's copy never is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from engine.memory.budget import Budget
from engine.memory.driver import Driver
from engine.memory.host import LockedMemory
from engine.types import OutOfMemory

T = TypeVar("T")


class HostCopy:
    """Of one model; ``memory`` is None while there is none."""

    memory: LockedMemory | None = None

    @property
    def size(self) -> int:
        """Bytes that are locked."""
        memory = self.memory
        return memory.size if memory else 0

    def close(self) -> None:
        """Nobody may copy from it any more."""
        memory, self.memory = self.memory, None
        if memory is not None:
            memory.close()


class HostCopies:
    """Thread-safe."""

    def __init__(self, driver: Driver, set_aside: int = 0) -> None:
        """``set_aside``: bytes within the limit that are no copy's, however low it is."""
        self.budget = Budget()
        self.budget.take(set_aside)
        self._driver = driver
        self._spare: list[HostCopy] = []
        """The one that was last used the longest ago first."""
        self._lock = threading.Lock()

    def limit(self, limit: int | None) -> None:
        """What is spare beyond it is given back. Blocking."""
        with self._lock:
            self.budget.limit = limit
            self._give_back_excess()

    def make(self, size: int) -> LockedMemory:
        """Memory for a copy, from what nobody uses. Raises OutOfMemory."""
        return LockedMemory(self._driver, size, budget=self.budget)

    def make_needed(self, size: int) -> LockedMemory:
        """The same at the cost of copies that are spare. Raises OutOfMemory."""
        return self.find_room(partial(self.make, size))

    def find_room(self, take: Callable[[], T]) -> T:
        """What ``take`` takes; while that is too much, spare copies are given back, if they are enough.
        Raises its OutOfMemory."""
        while True:
            try:
                return take()
            except OutOfMemory as error:
                with self._lock:
                    spare = sum(copy.size for copy in self._spare)
                    if not spare or spare < error.needed - error.available:
                        raise
                    self._give_back()

    def spare(self, copy: HostCopy) -> None:
        """Its model is awake now. It goes at once if the limit was lowered below it meanwhile."""
        with self._lock:
            if copy.memory is not None:
                self._spare.append(copy)
                self._give_back_excess()

    def claim(self, copy: HostCopy) -> bool:
        """Its model sleeps, wakes or is done with it: it is spare no more. Whether it is still there."""
        with self._lock:
            if copy in self._spare:
                self._spare.remove(copy)
            return copy.memory is not None

    def _give_back_excess(self) -> None:
        limit = self.budget.limit
        while limit is not None and self.budget.used > limit and self._spare:
            self._give_back()

    def _give_back(self) -> None:
        self._spare.pop(0).close()
