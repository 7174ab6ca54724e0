"""Counting up, down, in ranges and in steps."""

from __future__ import annotations

from random import Random

from .grammar import Exchange, sections
from .sums import pose

TEMPLATES = sections("counting.txt")


def listed(numbers: range) -> str:
    """The numbers, one after the other."""
    return ", ".join(map(str, numbers)) + "."


def exchange(rng: Random) -> Exchange:
    """A counting task with numbers up to thirty."""
    kind = rng.random()
    top = rng.choices((rng.randint(2, 12), rng.randint(2, 20), rng.randint(20, 30)), (5, 4, 1))[0]
    if kind < 0.38:
        return pose(TEMPLATES["up"], {"b": top}, listed(range(1, top + 1)), rng)
    a = rng.randint(0, max(1, top - 2))
    a = max(a, top - rng.randint(2, 14))
    if kind < 0.66:
        return pose(TEMPLATES["range"], {"a": a, "b": top}, listed(range(a, top + 1)), rng)
    if kind < 0.84:
        return pose(TEMPLATES["down"], {"b": top}, listed(range(top, 0, -1)), rng)
    if kind < 0.9:
        return pose(TEMPLATES["down range"], {"b": top, "a": a}, listed(range(top, a - 1, -1)), rng)
    if kind < 0.95:
        return pose(TEMPLATES["next"], {"b": top}, f"After {top} comes {top + 1}.", rng)
    return pose(TEMPLATES["previous"], {"b": top}, f"Before {top} comes {top - 1}.", rng)
