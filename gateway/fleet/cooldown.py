"""The pause after a failed wake: 5 seconds, doubling with each failure in a row up to 5 minutes."""

from __future__ import annotations

import math

FIRST = 5.0
LONGEST = 300.0


class CoolDown:
    def __init__(self) -> None:
        self.failures = 0
        self._until = -math.inf

    def begin(self, now: float) -> None:
        self.failures += 1
        self._until = now + min(FIRST * 2.0 ** (self.failures - 1), LONGEST)

    def left(self, now: float) -> float:
        return max(0.0, self._until - now)

    def clear(self) -> None:
        self.failures = 0
        self._until = -math.inf
