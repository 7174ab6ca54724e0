"""What a configuration comes to on a machine: who fits beside whom, who sleeps how deep, how long wakes take.

The fleet's own rules are asked, with a machine on which nothing runs yet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from engine import Estimate, Level
from gateway.bench.rates import Rates
from gateway.config import ModelConfig
from gateway.fleet import State
from gateway.fleet.levels import Levels
from gateway.fleet.ranking import least_loss
from gateway.fleet.room import Room
from gateway.fleet.snapshot import Budget, Model, Snapshot
from gateway.simulate.costs import CPU, GPU
from gateway.units import format_bytes, format_shortage


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A model whose files are here."""

    config: ModelConfig
    estimate: Estimate


class Forecast:
    """Of the models on one device. Each list of names is in the order of the configuration."""

    def __init__(self, models: Sequence[Known], budget: Budget) -> None:
        self.models = models
        # Whatever else runs now: the configuration is for longer.
        self.budget = msgspec.structs.replace(
            budget, device_available=budget.device_limit, host_available=budget.host_limit
        )
        self.awake = self._fit_awake()
        self.parked = self._fit_parked()

    def level(self, model: Known) -> tuple[Level, str]:
        """At which it would sleep if it had the memory to itself, and why."""
        wanted = model.config.level
        level, _ = self._levels([model]).level_for(_awake(model), wanted)
        size, limit = model.estimate.weights_bytes, self.budget.host_limit
        if wanted == 2:
            return level, "as configured"
        if level == 1:
            return level, f"its {format_bytes(size)} fit into memory.host_limit, {format_bytes(limit)}"
        needed, allowed = format_shortage(size, limit)
        return level, f"its {needed} do not fit into memory.host_limit, {allowed}"

    def _fit_awake(self) -> list[str]:
        asleep = self._snapshot([_asleep(model) for model in self.models])
        free = Room(asleep, Levels(asleep, least_loss)).free
        names = []
        for model in asleep.models:
            if model.to_wake <= free:
                free -= model.to_wake
                names.append(model.name)
        return names

    def _fit_parked(self) -> list[str]:
        levels = self._levels(self.models)
        names = []
        for model in map(_awake, self.models):
            level, pushed = levels.level_for(model, model.preferred_level)
            if level == 1 and not pushed:
                levels.park(model)
                names.append(model.name)
        return names

    def _levels(self, models: Sequence[Known]) -> Levels:
        return Levels(self._snapshot([_awake(model) for model in models]), least_loss)

    def _snapshot(self, models: Sequence[Model]) -> Snapshot:
        return Snapshot(now=0.0, models=tuple(models), budget=self.budget, min_awake=0.0, turn=0.0)


def wake_seconds(estimate: Estimate, rates: Rates, cached: float, *, shared: bool) -> dict[str, float]:
    """From level 1, from level 2 with the share ``cached`` of the files in the page cache, and cold, with
    none of them there: the simulator's formula with this machine's rates."""
    costs = CPU if shared else GPU
    light, deep, size = costs.level_1, costs.level_2, estimate.weights_bytes
    copying = 0.0 if shared else size / min(rates.copy, light.bytes_per_second or math.inf)
    reading = size * (cached / rates.cached + (1 - cached) / rates.disk)
    return {
        "1": light.wake_seconds + copying,
        "2": deep.wake_seconds + reading,
        "cold": deep.wake_seconds + size / rates.disk,
    }


def _awake(model: Known) -> Model:
    return Model(
        name=model.config.name,
        state=State.AWAKE,
        pinned=model.config.pinned,
        preferred_level=model.config.level,
        weights_bytes=model.estimate.weights_bytes,
    )


def _asleep(model: Known) -> Model:
    return Model(name=model.config.name, state=State.COLD, to_wake=model.estimate.least_bytes)
