"""The states of a served model and the causes that move it from one to the next."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal


class State(StrEnum):
    """``cold → waking → awake → draining → asleep``, and ``failed`` after a wake that did not succeed."""

    COLD = "cold"
    WAKING = "waking"
    AWAKE = "awake"
    DRAINING = "draining"
    ASLEEP = "asleep"
    FAILED = "failed"


Cause = Literal[
    "request", "preload", "manual", "idle", "deepen", "room", "turn", "memory", "failure", "config"
]
"""``deepen``: asleep at level 1 for long; ``room``: another model needs the memory; ``turn``: another model's
turn has come; ``memory``: more is held than allowed; ``failure``: something went wrong; ``config``: the
configuration has changed."""

WaitingFor = Literal["opening", "wake", "room", "turn", "place"]
"""``opening``: its small files are being read, or fetched; ``wake``: its wake is under way; ``room``: it
cannot begin, others have the memory; ``turn``: it drains and admits nobody until that is over; ``place``: it
is awake, and runs as many as it may."""
