"""Questions about Dormouse: what it is, how models sleep and wake, and how to use it."""

from __future__ import annotations

from random import Random

from .grammar import Exchange
from .topics import ask_about, read_topics

ESSENTIALS = read_topics("dormouse.txt")
USAGE = read_topics("usage.txt")
MEMORY = read_topics("memory.txt")


def essentials(rng: Random) -> Exchange:
    """A question about what Dormouse is or how sleep works."""
    return ask_about(ESSENTIALS, rng)


def usage(rng: Random) -> Exchange:
    """A question about how to use Dormouse."""
    return ask_about(USAGE, rng)


def memory(rng: Random) -> Exchange:
    """A question about memory, speed or the reasons for sleep."""
    return ask_about(MEMORY, rng)
