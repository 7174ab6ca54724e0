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
    first = gap_class(idle)
    begin, end = EDGES[first], EDGES[first + 1]
    # Of the gaps in the class that this one has reached, those that are longer.
    seen = [gaps[first] * (end - idle) / (end - begin), *gaps[first + 1 :]]
    known = sum(seen)
    unseen, doubt = DOUBT, DOUBT * max(idle, 1.0)
    uses = seconds = most = 0.0
    reached = idle
    for index, count in enumerate(seen, first + 1):
        end = EDGES[index]
        still_unseen = doubt / end
        ending = count + unseen - still_unseen
        seconds += (known + unseen - ending / 2) * (end - reached)
        uses += ending
        known -= count
        unseen, reached = still_unseen, end
        if reached - idle >= HORIZON:
            if uses > most * seconds:
                most = uses / seconds
            elif uses + known + unseen <= most * seconds:
                break  # nor would all that is left make it more, did it come at once
            if known <= 0.0:
                break  # what is not seen comes ever more seldom
    return most
