"""At which level a model may sleep, and who must leave the host's memory for it."""

from __future__ import annotations

from typing import Literal

from engine import Level
from gateway.fleet.ranking import Ranking
from gateway.fleet.snapshot import Model, Snapshot


class Levels:
    """What one planning knows of levels: what the host's memory has left, and what is lost at which level."""

    def __init__(self, snapshot: Snapshot, ranking: Ranking) -> None:
        budget = snapshot.budget
        self._models = snapshot.models
        self._now = snapshot.now
        self._ranking = ranking
        self._losses: dict[tuple[str, Level], float] = {}
        self._shared = budget.shared_pool
        self._device_short = budget.device_used > budget.device_limit or budget.device_available < 0
        spare = sum([model.spare_bytes for model in self._models])
        self._host_room = budget.host_limit - budget.host_parked + spare
        self._host_available = budget.host_available + spare
        """Both with what is spare, which gives way by itself to who falls asleep."""
        beyond = max(budget.host_parked - budget.host_limit, 0 if self._shared else -budget.host_available)
        self.excess = beyond - sum([model.host_bytes for model in self._models if model.moving])
        """What is parked beyond what is allowed, or the host can bear, when all that is under way is done."""

    def level_for(self, model: Model, wanted: Level | Literal["auto"]) -> tuple[Level, list[Model]]:
        """The level, and the colder sleepers that must leave the host's memory first."""
        if wanted == 2 or (self._shared and self._device_short):
            return 2, []
        extra = self._parking(model)
        if not self._shared and extra > self._host_available:
            return 2, []
        pushed: list[Model] = []
        missing = extra - self._host_room
        for other in self.colder_than(model) if missing > 0 else ():
            if missing <= 0:
                break
            pushed.append(other)
            missing -= other.host_bytes
        return (2, []) if missing > 0 else (1, pushed)

    def park(self, model: Model) -> None:
        """It is going to sleep at level 1."""
        self._host_room -= self._parking(model)
        self._host_available -= self._parking(model)

    def spare(self) -> list[Model]:
        """Those whose copies are, the one that was used last the last."""
        return sorted([m for m in self._models if m.spare_bytes], key=lambda m: m.last_used)

    def coldest(self) -> list[Model]:
        """Those that may leave the host's memory, the one with the least to lose first."""
        parked = [
            m for m in self._models if m.parked and m.waiting_since is None and not (m.pinned or m.moving)
        ]
        return sorted(parked, key=lambda m: (self._ranked(m, 2), m.last_used))

    def colder_than(self, model: Model) -> list[Model]:
        own = self._ranked(model, 2)
        return [m for m in self.coldest() if self._ranked(m, 2) < own]

    def loss(self, model: Model) -> float:
        """By the ranking, at the level at which it would sleep to make room."""
        deep = self._shared or model.parked or model.preferred_level == 2
        return self._ranked(model, 2 if deep or self._parking(model) > self._host_room else 1)

    def _ranked(self, model: Model, level: Level) -> float:
        """What the ranking says of it, asked once a plan."""
        loss = self._losses.get((model.name, level))
        if loss is None:
            loss = self._losses[model.name, level] = self._ranking(model, self._now, level)
        return loss

    def _parking(self, model: Model) -> int:
        """What parking its weights takes of the host's room, of which a spare copy of its own is a part."""
        there = 0 if self._shared else model.host_bytes - model.spare_bytes
        return max(0, model.weights_bytes - there)
