"""What a device has left, and the ways to gain room on it."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Iterator
from functools import cached_property
from typing import Literal, NamedTuple

from gateway.fleet.levels import Levels
from gateway.fleet.snapshot import Model, Snapshot


class Option(NamedTuple):
    """One way to gain room. ``at`` is when it can be had; infinite: not before something else has ended."""

    model: Model
    gain: int
    way: Literal["trim", "sleep", "forget"] = "sleep"
    at: float = -math.inf


class Room:
    """The room of one planning.

    ``free`` is what a wake may take now; ``left`` what is left when all that is under way or planned is done.
    """

    def __init__(self, snapshot: Snapshot, levels: Levels) -> None:
        budget = snapshot.budget
        self._snapshot = snapshot
        self._levels = levels
        self._allowed = budget.device_limit - budget.device_used
        self._available = budget.device_available
        self._moving = [model for model in snapshot.models if model.moving]
        changes = [model.target_bytes - model.device_bytes for model in self._moving]
        unused = min(self._allowed, self._available)
        self.free = unused - sum(change for change in changes if change > 0)
        self.left = unused - sum(changes)
        # What a wake has claimed and half filled counts once, where it is counted: against the limit.
        freeing = sum(change for change in changes if change < 0)
        self.excess = max(sum(changes) - self._allowed, freeing - self._available)

    def possible(self, model: Model) -> int:
        """What a model that is at rest could have if everything that may sleep slept."""
        return self._most - _movable(model)

    def is_enough_for(self, model: Model, *, beside: Model) -> bool:
        """Whether both could be awake, if everything else that may sleep slept."""
        return _movable(model) <= self._most - _movable(beside) - beside.to_wake - beside.shortage

    @cached_property
    def _most(self) -> int:
        """What one that holds nothing could have."""
        promised = sum(max(0, m.target_bytes - m.device_bytes) for m in self._moving if m.pinned)
        # Of what is available a wake under way may have filled its part already, which would come back too.
        filled = sum(max(0, m.target_bytes - m.device_bytes) for m in self._moving if not m.pinned)
        movable = sum([_movable(m) for m in self._snapshot.models if m.device_bytes > m.residue_bytes])
        return min(self._allowed, self._available + filled) - promised + movable

    def options(self, claimed: Container[str]) -> Iterator[Option]:
        """All ways to gain room, the least painful first; found out only as far as they are needed."""
        others = [m for m in self._holders if m.name not in claimed]
        loss = self._levels.loss
        up = [m for m in others if m.half_woken or m.awake]
        yield from (Option(m, m.kv_unused, "trim") for m in up if _trimmable(m))
        if self._snapshot.budget.shared_pool:
            parked = [m for m in others if m.parked and _may_move(m)]
            parked.sort(key=lambda m: (m.waiting_since is not None, loss(m)))
            yield from (Option(m, m.movable_bytes) for m in parked)
        idle = sorted(filter(_idle, up), key=lambda m: (self._served(m), loss(m)))
        yield from (Option(m, _gain(m), at=self._served(m)) for m in idle)
        yield from (Option(m, m.kv_used, "forget") for m in others if _suspended(m))
        busy = sorted(filter(_busy, others), key=lambda m: (not m.turn_over, m.awake_since))
        yield from (Option(m, _gain(m), at=math.inf) for m in busy)
        yield from (Option(m, m.kv_used, "forget", math.inf) for m in up if m.awake and _busy(m))

    @cached_property
    def _holders(self) -> list[Model]:
        """Those that hold what could be given back, or will; the last used one last."""
        models = self._snapshot.models
        holders = [m for m in models if m.moving or m.device_bytes > m.residue_bytes]
        return sorted(holders, key=lambda m: m.last_used)

    def _served(self, model: Model) -> float:
        """When an idle one has served its least; one whose time is over anyway need not."""
        now = self._snapshot.now
        return now if model.due else max(now, model.awake_since + self._snapshot.min_awake)


def pick(shortfall: int, options: Iterable[Option]) -> list[Option] | None:
    """The first options that cover the shortfall, less those that turn out not to be needed."""
    picked: list[Option] = []
    ways = iter(options)
    while shortfall > 0:
        option = next(ways, None)
        if option is None:
            return None
        picked.append(option)
        shortfall -= option.gain
    needed: list[Option] = []
    for option in reversed(picked):
        if shortfall + option.gain <= 0:
            shortfall += option.gain
        else:
            needed.append(option)
    return needed[::-1]


def _may_move(model: Model) -> bool:
    return not model.pinned and not model.moving


def _trimmable(model: Model) -> bool:
    return model.kv_unused > 0 and not model.moving and model.awake


def _suspended(model: Model) -> bool:
    return model.kv_used > 0 and _may_move(model) and not model.awake


def _idle(model: Model) -> bool:
    if model.active or model.pinned or model.moving:
        return False
    return model.half_woken or (model.awake if model.waiting_since is None else model.turn_over)


def _busy(model: Model) -> bool:
    return not model.pinned and not _idle(model) and (model.moving or model.awake)


def _movable(model: Model) -> int:
    """What it could give back in the end, whatever it is doing now."""
    return 0 if model.pinned else max(0, model.device_bytes - model.residue_bytes)


def _gain(model: Model) -> int:
    """What its sleep gives beyond trimming its KV, and beyond what its requests keep when suspended."""
    kept = model.kv_used if model.active and model.awake and not model.moving else 0
    return model.movable_bytes - kept - (model.kv_unused if _trimmable(model) else 0)
