"""Whom to put to sleep: of the models that may sleep, the one with the least to lose.

A ranking is a pure function of what the policy sees of a model. ``least_loss`` is the seconds that bringing
back a byte takes, times how soon the model will be asked for.

How soon: the Gittins index of the idle gap (Gittins 1979), uses a second over the horizon for which that is
most, given how long the gap has lasted. Gaps are known by how many of each length there were, and half a gap
of no typical length (Lindy's law) stands for all that were not seen. So a model in a burst of use is kept
while the burst may last, and one used steadily is judged by its rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from engine import Level
from gateway.fleet.snapshot import Model
from gateway.fleet.usage import EDGES, gap_class

Ranking = Callable[[Model, float, Level], float]
"""What is lost, for each byte, if the model is at this level of sleep from now on: the least goes first."""

DOUBT = 0.5
HORIZON = 60.0
"""Seconds that are looked ahead at least."""


def least_loss(model: Model, now: float, level: Level) -> float:
    return how_soon(now - model.last_used, model.gaps) / model.wake_rates[level - 1]


def how_soon(idle: float, gaps: Sequence[float]) -> float:
    """Uses a second to be expected of a model that has been idle so long; 0 for one never used."""
    if idle >= EDGES[-2]:
        return 1.0 / (idle + EDGES[-1]) if idle < math.inf else 0.0
    first, reached = gap_class(idle), idle
    doubt = DOUBT
    lasting = doubt + gaps[first] * _share_beyond(first, idle) + sum(gaps[first + 1 :])
    uses = seconds = most = 0.0
    for index in range(first, len(gaps)):
        end = EDGES[index + 1]
        doubt_left = DOUBT * max(idle, 1.0) / end
        ending = gaps[index] * _share_beyond(index, reached) + doubt - doubt_left
        seconds += (lasting - ending / 2) * (end - reached)
        uses += ending
        lasting -= ending
        reached, doubt = end, doubt_left
        if reached - idle >= HORIZON:
            most = max(most, uses / seconds)
    return most


def _share_beyond(index: int, gap: float) -> float:
    """Of the gaps in a class, those longer than ``gap``, which lies in it."""
    begin, end = EDGES[index], EDGES[index + 1]
    return (end - gap) / (end - begin)
