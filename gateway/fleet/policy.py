"""Who sleeps, who wakes, and when to ask again: pure decisions.

``plan`` gets a snapshot of one device's models and the memory budgets and answers a list of actions. It has
no clock, no I/O and no memory of its own: the fleet asks again after whatever changes. Models that wait for
room are served in the order of their waiting. What one of them is to get is not given to a later one, but a
later one that fits beside it need not wait.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from engine import Level
from gateway.fleet.actions import (
    Action,
    Deepen,
    EndTurn,
    ForgetKv,
    Plan,
    Refuse,
    Resume,
    Sleep,
    Suspend,
    TrimKv,
    Wake,
)
from gateway.fleet.ranking import Ranking, least_loss
from gateway.fleet.snapshot import Model, Snapshot
from gateway.fleet.state import Cause

_GRACE = 0.1
"""Of a turn: what is busy after its turn may still end by itself so long, before it is suspended."""


@dataclass(frozen=True, slots=True)
class _Option:
    """One way to gain room. ``at`` is when it can be had; infinite: not before something else has ended."""

    model: Model
    gain: int
    way: Literal["trim", "sleep", "forget"] = "sleep"
    at: float = -math.inf


def plan(snapshot: Snapshot, ranking: Ranking = least_loss) -> Plan:
    """What is to be done now, and when to ask again."""
    planner = _Planner(snapshot, ranking)
    planner.relieve()
    for model in sorted(snapshot.models, key=_turn_order):
        if model.waits_for_room:
            planner.make_way_for(model)
    planner.finish()
    planner.retire()
    planner.resume()
    return Plan(tuple(planner.actions), planner.again_at)


def level_that_fits(snapshot: Snapshot, name: str, wanted: Level | Literal["auto"]) -> Level:
    """The lightest level not lighter than ``wanted`` at which the model may sleep now."""
    model = next(model for model in snapshot.models if model.name == name)
    level, pushed = _Planner(snapshot).level_for(model, wanted)
    return 2 if pushed else level


def _turn_order(model: Model) -> tuple[float, float]:
    return (model.waiting_since if model.waiting_since is not None else math.inf, model.last_used)


class _Planner:
    """One planning: the actions so far and what they leave.

    ``free`` is what a wake may take now; ``room`` what is left when all that is under way or planned is done.
    """

    def __init__(self, snapshot: Snapshot, ranking: Ranking = least_loss) -> None:
        self.now = snapshot.now
        self.ranking = ranking
        self._losses: dict[tuple[str, Level], float] = {}
        self.models = snapshot.models
        self.min_awake = snapshot.min_awake
        self.turn = snapshot.turn
        self.shared = snapshot.budget.shared_pool
        budget = snapshot.budget
        self.allowed = budget.device_limit - budget.device_used
        self.available = budget.device_available
        self.unused = min(self.allowed, self.available)
        changes = [m.target_bytes - m.device_bytes for m in self.models if m.moving]
        self.free = self.unused - sum(change for change in changes if change > 0)
        self.room = self.unused - sum(changes)
        # What a wake has claimed and half filled counts once, where it is counted: against the limit.
        freeing = sum(change for change in changes if change < 0)
        self.excess = max(sum(changes) - self.allowed, freeing - self.available)
        self.host_room = budget.host_limit - budget.host_parked
        self.host_available = budget.host_available
        self.actions: list[Action] = []
        self.claimed: set[str] = set()
        self.again_at = math.inf

    def make_way_for(self, model: Model) -> None:
        """Wake it if there is room, or do what can be done now to make room."""
        if model.name in self.claimed:
            return
        self.claimed.add(model.name)
        needed = model.to_wake + model.shortage
        possible = self._possible(model)
        if needed > possible:
            refuse = Refuse(model.name, needed, max(0, possible))
            self.actions.append(ForgetKv(model.name) if model.kv_used else refuse)
            return
        picked = _pick(needed - self.room, self._options(model))
        if picked is None:
            return  # an earlier one gets all there is; its turn comes after that one's
        self.room -= needed
        if not picked and needed <= self.free:
            self.free -= needed
            self.actions.append(Wake(model.name))
        elif all(option.at <= self.now for option in picked):
            self._take(picked, "room")
        else:
            self._wait_for(picked, model)

    def finish(self) -> None:
        """A wake that has begun goes on though all who asked for it have left, unless room is needed."""
        for model in self.models:
            if not model.begun or model.name in self.claimed or model.to_wake > min(self.free, self.room):
                continue
            self.claimed.add(model.name)
            self.free -= model.to_wake
            self.room -= model.to_wake
            self.actions.append(Wake(model.name))

    def relieve(self) -> None:
        """More is held than allowed, or than the system can bear: give back what nobody uses, before the
        kernel takes it by force. First the sleepers, the coldest first."""
        before = self.room
        self._relieve_host()
        excess = self.excess - (self.room - before)
        if excess <= 0:
            return
        ways = [option for option in self._options() if option.at < math.inf]
        ways.sort(key=lambda option: not (option.model.parked and option.model.waiting_since is None))
        picked = _pick(excess, ways)
        self._take(ways if picked is None else picked, "memory")

    def _relieve_host(self) -> None:
        """More is parked than allowed, or than the host can bear."""
        excess = max(-self.host_room, 0 if self.shared else -self.host_available)
        excess -= sum(model.host_bytes for model in self.models if model.moving)
        if excess <= 0:
            return
        for model in sorted(self.models, key=lambda m: (self._loss(m), m.last_used)):
            if excess > 0 and model.parked and _may_move(model) and model.waiting_since is None:
                excess -= model.host_bytes
                self._take([_Option(model, model.movable_bytes if self.shared else 0)], "memory")

    def retire(self) -> None:
        """Put to sleep, or deeper, those whose timer has run out."""
        for model in sorted(self.models, key=lambda m: m.last_used):
            if not model.due or model.pinned or model.moving or model.name in self.claimed:
                continue
            if model.waiting_since is not None or model.active:
                continue
            self.actions.extend(self._sleep(model, "deepen" if model.parked else "idle"))

    def resume(self) -> None:
        for model in self.models:
            if model.turn_over and not model.moving and model.name not in self.claimed:
                self.actions.append(Resume(model.name))

    def _possible(self, model: Model) -> int:
        """The room that it could have if everything that may sleep slept."""
        others = [other for other in self.models if other is not model]
        promised = sum(max(0, m.target_bytes - m.device_bytes) for m in others if m.moving and m.pinned)
        movable = sum(max(0, m.device_bytes - m.residue_bytes) for m in others if not m.pinned)
        # Of what is available a wake under way may have filled its part already, which would come back too.
        filled = sum(max(0, m.target_bytes - m.device_bytes) for m in others if m.moving and not m.pinned)
        return min(self.allowed, self.available + filled) - promised + movable

    def _options(self, waiting: Model | None = None) -> Iterator[_Option]:
        """All ways to gain room, the least painful first; found out only as far as they are needed."""
        others = [m for m in self.models if m is not waiting and m.name not in self.claimed]
        others.sort(key=lambda m: m.last_used)
        yield from [_Option(m, m.kv_unused, "trim") for m in others if _trimmable(m)]
        parked = [_Option(m, m.movable_bytes) for m in others if self.shared and m.parked and _may_move(m)]
        yield from sorted(parked, key=lambda o: (o.model.waiting_since is not None, self._loss(o.model)))
        idle = [self._idle_option(m) for m in sorted(filter(_idle, others), key=self._loss)]
        yield from sorted(idle, key=lambda option: max(option.at, self.now))
        yield from [
            _Option(m, m.kv_used, "forget") for m in others if _may_move(m) and not m.awake and m.kv_used
        ]
        busy = [_Option(m, _gain(m), at=math.inf) for m in others if _busy(m)]
        yield from sorted(busy, key=lambda option: (not option.model.turn_over, option.model.awake_since))
        yield from [_Option(m, m.kv_used, "forget", math.inf) for m in others if _busy(m) and m.awake]

    def _idle_option(self, model: Model) -> _Option:
        """One whose time is over anyway need not serve its least."""
        return _Option(model, _gain(model), at=self.now if model.due else model.awake_since + self.min_awake)

    def _loss(self, model: Model) -> float:
        """By the ranking, at the level at which it would sleep to make room."""
        deep = self.shared or model.parked or model.preferred_level == 2
        return self._ranked(model, 2 if deep or self._parking(model) > self.host_room else 1)

    def _ranked(self, model: Model, level: Level) -> float:
        """What the ranking says of it, asked once a plan."""
        if (model.name, level) not in self._losses:
            self._losses[model.name, level] = self.ranking(model, self.now, level)
        return self._losses[model.name, level]

    def _take(self, options: list[_Option], cause: Cause) -> None:
        """Do what can be done at once. Who goes to sleep need not be trimmed before."""
        sleepers = {option.model.name for option in options if option.way == "sleep"}
        self.room += sum(option.gain for option in options)
        self.claimed.update(option.model.name for option in options)
        for option in options:
            model = option.model
            if option.way == "sleep":
                self.actions.extend(
                    self._sleep(model, "turn" if model.turn_over and cause == "room" else cause)
                )
            elif model.name not in sleepers:
                self.actions.append(TrimKv(model.name) if option.way == "trim" else ForgetKv(model.name))

    def _wait_for(self, options: list[_Option], waiting: Model) -> None:
        """Some of what is needed is busy: end its turn when it has had it, then suspend it."""
        self.room += sum(option.gain for option in options)
        self.claimed.update(option.model.name for option in options)
        forgetful = {option.model.name for option in options if option.way == "forget"}
        for model in {
            option.model.name: option.model for option in options if option.at == math.inf
        }.values():
            if not model.moving:
                action, at = self._end_of_turn(model, waiting, keep_kv=model.name not in forgetful)
                if at <= self.now:
                    self.actions.append(action)
                    at = self.now + _GRACE * self.turn
                self._ask_again(at)
        for option in options:
            if option.at < math.inf:
                self._ask_again(option.at)

    def _end_of_turn(self, model: Model, waiting: Model, *, keep_kv: bool) -> tuple[Action, float]:
        """What comes next for a busy model, and when."""
        if not model.turn_over:
            began = max(waiting.waiting_since or self.now, model.awake_since)
            return EndTurn(model.name), max(began + self.turn, model.awake_since + self.min_awake)
        level, pushed = self.level_for(model, 2 if self.shared else model.preferred_level)
        suspend = Suspend(model.name, 2 if pushed else level, keep_kv)
        return suspend, model.turn_ended_at + _GRACE * self.turn

    def _ask_again(self, at: float) -> None:
        if at > self.now:
            self.again_at = min(self.again_at, at)

    def level_for(self, model: Model, wanted: Level | Literal["auto"]) -> tuple[Level, list[Model]]:
        """The level, and the colder sleepers that must leave the host's memory first."""
        if wanted == 2 or (self.shared and self.unused < 0):
            return 2, []
        extra = self._parking(model)
        if not self.shared and extra > self.host_available:
            return 2, []
        pushed: list[Model] = []
        missing = extra - self.host_room
        for other in self._colder_than(model) if missing > 0 else ():
            if missing <= 0:
                break
            pushed.append(other)
            missing -= other.host_bytes
        return (2, []) if missing > 0 else (1, pushed)

    def _colder_than(self, model: Model) -> list[Model]:
        """Parked ones with less to lose, the least first."""
        parked = [m for m in self.models if m.parked and _may_move(m) and m.waiting_since is None]
        losses = {m.name: self._ranked(m, 2) for m in (model, *parked)}
        parked.sort(key=lambda m: (losses[m.name], m.last_used))
        return [m for m in parked if m is not model and losses[m.name] < losses[model.name]]

    def _sleep(self, model: Model, cause: Cause) -> Iterator[Action]:
        """Its sleep; or first the deepening of those that must make way for its parked weights."""
        self.claimed.add(model.name)
        if model.parked:
            yield Deepen(model.name, cause)
            return
        level, pushed = self.level_for(model, 2 if self.shared and cause != "idle" else model.preferred_level)
        for other in pushed:
            if other.name not in self.claimed:
                self.claimed.add(other.name)
                yield Deepen(other.name, "room")
        if not pushed:
            self.host_room -= self._parking(model) if level == 1 else 0
            yield Sleep(model.name, level, cause)

    def _parking(self, model: Model) -> int:
        """What parking its weights adds to the host's memory."""
        return model.weights_bytes if self.shared else max(0, model.weights_bytes - model.host_bytes)


def _pick(shortfall: int, options: Iterable[_Option]) -> list[_Option] | None:
    """The first options that cover the shortfall, less those that turn out not to be needed."""
    picked: list[_Option] = []
    gained = 0
    for option in options:
        if gained >= shortfall:
            break
        picked.append(option)
        gained += option.gain
    if gained < shortfall:
        return None
    for option in reversed(picked.copy()):
        if gained - option.gain >= shortfall:
            picked.remove(option)
            gained -= option.gain
    return picked


def _may_move(model: Model) -> bool:
    return not model.pinned and not model.moving


def _trimmable(model: Model) -> bool:
    return model.awake and not model.moving and model.kv_unused > 0


def _idle(model: Model) -> bool:
    if not _may_move(model) or model.active:
        return False
    if model.half_woken or model.turn_over:
        return True
    return model.awake and model.waiting_since is None


def _busy(model: Model) -> bool:
    return not model.pinned and not _idle(model) and (model.moving or model.awake)


def _gain(model: Model) -> int:
    """What its sleep gives beyond trimming its KV, and beyond what its requests keep when suspended."""
    kept = model.kv_used if model.active and model.awake and not model.moving else 0
    return model.movable_bytes - kept - (model.kv_unused if _trimmable(model) else 0)
