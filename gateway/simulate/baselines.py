"""What the server's ranking is compared with."""

from __future__ import annotations

from collections.abc import Callable

from engine import Level
from gateway.fleet import Transition
from gateway.fleet.ranking import Ranking, least_loss
from gateway.fleet.snapshot import Model
from gateway.fleet.state import State

Watch = Callable[[Transition], None]


def least_recently_used(model: Model, now: float, level: Level) -> float:
    return model.last_used


class GreedyDualSize:
    """GreedyDual-Size (Cao and Irani 1997): at each use a model's credit becomes the inflation so far and its
    cost for each byte; the least credit goes, and is the inflation from then on."""

    def __init__(self) -> None:
        self._inflation = 0.0
        self._credit: dict[str, float] = {}
        self._used: dict[str, float] = {}

    def __call__(self, model: Model, now: float, level: Level) -> float:
        if self._used.get(model.name) != model.last_used:
            self._used[model.name] = model.last_used
            self._credit[model.name] = self._inflation + 1.0 / model.wake_rates[level - 1]
        return self._credit[model.name]

    def moved(self, transition: Transition) -> None:
        """To be told of every transition."""
        if transition.after is State.ASLEEP and transition.cause in ("room", "turn", "memory"):
            self._inflation = max(self._inflation, self._credit.get(transition.model, 0.0))


def rankings() -> dict[str, tuple[Ranking, Watch]]:
    """By name, each with what is to be told of transitions; new ones at each call."""
    greedy = GreedyDualSize()
    return {
        "lru": (least_recently_used, _unmoved),
        "gds": (greedy, greedy.moved),
        "dormouse": (least_loss, _unmoved),
    }


def _unmoved(transition: Transition) -> None:
    """It keeps no state."""
