"""How a model has been used and how fast it has woken: what says whom to put to sleep."""

from __future__ import annotations

import math
from typing import Final

from engine import Level

EDGES: Final = (0.0, *(2.0**exponent for exponent in range(21)))
"""Seconds at which the classes of idle gaps begin and end: up to a second, then doubling, to 12 days."""
MEMORY: Final = 0.98
"""What a gap still counts when another has been seen."""
DEFAULT_RATES: Final = (20e9, 2e9)
"""Bytes a second that wakes from level 1 and 2 are taken to fill before one was measured."""

NO_GAPS: Final = (0.0,) * (len(EDGES) - 1)


class Usage:
    """``gaps`` counts the idle gaps between uses by class, older ones less; ``wake_rates`` are bytes of
    weights a second over the last wakes, from level 1 and from level 2 (or cold)."""

    def __init__(self) -> None:
        self.gaps: tuple[float, ...] = NO_GAPS
        self.wake_rates = DEFAULT_RATES
        self._measured: set[Level] = set()

    def asked_after(self, gap: float) -> None:
        """It has been asked for after ``gap`` seconds of idleness."""
        if gap < EDGES[-1]:
            gaps = [count * MEMORY for count in self.gaps]
            gaps[gap_class(gap)] += 1.0
            self.gaps = tuple(gaps)

    def woken(self, level: Level, weights_bytes: int, seconds: float) -> None:
        """It has been woken from ``level``."""
        rate = weights_bytes / max(seconds, 1e-6)
        light, deep = self.wake_rates
        if level in self._measured:
            rate = (rate + (light if level == 1 else deep)) / 2
        self._measured.add(level)
        self.wake_rates = (rate, deep) if level == 1 else (light, rate)


def gap_class(gap: float) -> int:
    """The index of the class that a gap of so many seconds falls into."""
    return 0 if gap < 1.0 else min(len(EDGES) - 2, math.frexp(gap)[1])
