"""What all the address ranges of one device may hold together, whatever is free beyond it."""

from __future__ import annotations

import threading

from engine.types import OutOfMemory


class Budget:
    """Counts committed bytes against ``limit``; None: no limit but the system's. Thread-safe."""

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self._used = 0
        self._lock = threading.Lock()

    @property
    def used(self) -> int:
        return self._used

    def take(self, size: int) -> None:
        """Raises OutOfMemory, having taken nothing."""
        with self._lock:
            if self.limit is not None and self._used + size > self.limit:
                raise OutOfMemory(size, max(0, self.limit - self._used))
            self._used += size

    def give(self, size: int) -> None:
        with self._lock:
            self._used -= size
