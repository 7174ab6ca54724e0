"""What the policy can ask for."""

from __future__ import annotations

import math
from dataclasses import dataclass

from engine import Level
from gateway.fleet.state import Cause


@dataclass(frozen=True, slots=True)
class Wake:
    name: str


@dataclass(frozen=True, slots=True)
class Sleep:
    """Only for a model with nothing in flight."""

    name: str
    level: Level
    cause: Cause


@dataclass(frozen=True, slots=True)
class TrimKv:
    name: str


@dataclass(frozen=True, slots=True)
class TrimCopy:
    """What an awake model keeps in the host's memory for its next sleep goes."""

    name: str


@dataclass(frozen=True, slots=True)
class Deepen:
    """From level 1 to level 2."""

    name: str
    cause: Cause


@dataclass(frozen=True, slots=True)
class EndTurn:
    """Admit nobody any more, so that it drains."""

    name: str


@dataclass(frozen=True, slots=True)
class Suspend:
    """Stop what runs at the end of its step and put the model to sleep; it goes on when woken.
    ``keep_kv``: what has been computed stays in memory."""

    name: str
    level: Level
    keep_kv: bool


@dataclass(frozen=True, slots=True)
class ForgetKv:
    """What is suspended gives up what was computed, and computes it again later."""

    name: str


@dataclass(frozen=True, slots=True)
class Resume:
    """Admit again: nobody needs its room any more."""

    name: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """Could not wake even if everything that may sleep slept."""

    name: str
    needed: int
    possible: int


Action = Wake | Sleep | TrimKv | TrimCopy | Deepen | EndTurn | Suspend | ForgetKv | Resume | Refuse


@dataclass(frozen=True, slots=True)
class Plan:
    actions: tuple[Action, ...] = ()
    again_at: float = math.inf
    """Ask again at this time even if nothing has changed."""
