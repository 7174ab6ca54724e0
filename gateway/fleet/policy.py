"""Who sleeps, who wakes, and when to ask again: pure decisions.

``plan`` gets a snapshot of one device's models and the memory budgets and answers a list of actions. It has
no clock, no I/O and no memory of its own: the fleet asks again after whatever changes. Models that wait for
room are served in the order of their waiting. What one of them is to get is not given to a later one, but a
later one that fits beside it need not wait.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
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
    TrimCopy,
    TrimKv,
    Wake,
)
from gateway.fleet.levels import Levels
from gateway.fleet.ranking import Ranking, least_loss
from gateway.fleet.room import Option, Room, pick
from gateway.fleet.snapshot import Model, Snapshot
from gateway.fleet.state import Cause

_MAKERS = 8
"""Of those who wait for room, so many may have others put to sleep for them in one plan; the rest come later,
unless they fit as it is."""
_GRACE = 0.1
"""Of a turn: what is busy after its turn may still end by itself so long, before it is suspended."""


def plan(snapshot: Snapshot, ranking: Ranking = least_loss) -> Plan:
    """What is to be done now, and when to ask again."""
    planner = _Planner(snapshot, ranking)
    planner.relieve()
    for model in sorted([m for m in snapshot.models if m.waits_for_room], key=_turn_order):
        planner.make_way_for(model)
    planner.finish()
    planner.retire()
    planner.resume()
    return Plan(tuple(planner.actions), planner.again_at)


def level_that_fits(snapshot: Snapshot, name: str, wanted: Level | Literal["auto"]) -> Level:
    """The lightest level not lighter than ``wanted`` at which the model may sleep now."""
    model = next(model for model in snapshot.models if model.name == name)
    level, pushed = Levels(snapshot, least_loss).level_for(model, wanted)
    return 2 if pushed else level


def _turn_order(model: Model) -> tuple[float, float]:
    return (model.waiting_since if model.waiting_since is not None else math.inf, model.last_used)


class _Planner:
    """One planning: the actions so far. Who is claimed has, or will have, its part in them; nothing else is
    asked of it."""

    def __init__(self, snapshot: Snapshot, ranking: Ranking) -> None:
        self.snapshot = snapshot
        self.now = snapshot.now
        self.models = snapshot.models
        self.shared = snapshot.budget.shared_pool
        self.levels = Levels(snapshot, ranking)
        self.room = Room(snapshot, self.levels)
        self.actions: list[Action] = []
        self.claimed: set[str] = set()
        self.makers = 0
        self.again_at = math.inf

    def relieve(self) -> None:
        """More is held than allowed, or than the system can bear: give back what nobody uses, before the
        kernel takes it by force. First the sleepers, the coldest first."""
        before = self.room.left
        self._relieve_host()
        excess = self.room.excess - (self.room.left - before)
        if excess <= 0:
            return
        ways = [option for option in self.room.options(self.claimed) if option.at < math.inf]
        ways.sort(key=lambda option: not (option.model.parked and option.model.waiting_since is None))
        picked = pick(excess, ways)
        self._take(ways if picked is None else picked, "memory")

    def _relieve_host(self) -> None:
        excess = self.levels.excess
        if excess <= 0:
            return
        for model in self.levels.spare():
            if excess <= 0:
                break
            excess -= model.spare_bytes
            self.claimed.add(model.name)
            self.actions.append(TrimCopy(model.name))
        for model in self.levels.coldest():
            if excess <= 0:
                break
            excess -= model.host_bytes
            self._take([Option(model, model.movable_bytes if self.shared else 0)], "memory")

    def make_way_for(self, model: Model) -> None:
        """Wake it if there is room, or do what can be done now to make room."""
        if model.name in self.claimed:
            return
        self.claimed.add(model.name)
        room = self.room
        needed = model.to_wake + model.shortage
        possible = room.possible(model)
        if needed > possible:
            refuse = Refuse(model.name, needed, max(0, possible))
            self.actions.append(ForgetKv(model.name) if model.kv_used else refuse)
            return
        self.makers += needed > room.left
        if needed > room.left and self.makers > _MAKERS:
            return
        picked = pick(needed - room.left, room.options(self.claimed))
        if picked is None:
            return  # an earlier one gets all there is; its turn comes after that one's
        room.left -= needed
        if not picked and needed <= room.free:
            room.free -= needed
            self.actions.append(Wake(model.name))
        elif all(option.at <= self.now for option in picked):
            self._take(picked, "room")
        else:
            self._wait_for(picked, model)

    def finish(self) -> None:
        """A wake that has begun goes on though all who asked for it have left, unless room is needed."""
        room = self.room
        for model in self.models:
            if not model.begun or model.name in self.claimed or model.to_wake > min(room.free, room.left):
                continue
            self.claimed.add(model.name)
            room.free -= model.to_wake
            room.left -= model.to_wake
            self.actions.append(Wake(model.name))

    def retire(self) -> None:
        """Put to sleep, or deeper, those whose timer has run out."""
        for model in sorted([m for m in self.models if m.due], key=lambda m: m.last_used):
            if model.pinned or model.moving or model.name in self.claimed:
                continue
            if model.waiting_since is not None or model.active:
                continue
            self.actions.extend(self._sleep(model, "deepen" if model.parked else "idle"))

    def resume(self) -> None:
        for model in self.models:
            if model.turn_over and not (model.by_hand or model.moving or model.name in self.claimed):
                self.actions.append(Resume(model.name))

    def _claim(self, options: list[Option]) -> None:
        self.room.left += sum(option.gain for option in options)
        self.claimed.update(option.model.name for option in options)

    def _take(self, options: list[Option], cause: Cause) -> None:
        """Do what can be done at once. Who goes to sleep need not be trimmed before."""
        self._claim(options)
        sleepers = {option.model.name for option in options if option.way == "sleep"}
        for option in options:
            model = option.model
            if option.way == "sleep":
                self.actions.extend(
                    self._sleep(model, "turn" if model.turn_over and cause == "room" else cause)
                )
            elif model.name not in sleepers:
                self.actions.append(TrimKv(model.name) if option.way == "trim" else ForgetKv(model.name))

    def _wait_for(self, options: list[Option], waiting: Model) -> None:
        """Some of what is needed is busy: end its turn when it has had it, then suspend it."""
        self._claim(options)
        forgetful = {option.model.name for option in options if option.way == "forget"}
        busy = {option.model.name: option.model for option in options if option.at == math.inf}
        for model in busy.values():
            if not model.moving:
                action, at = self._end_of_turn(model, waiting, keep_kv=model.name not in forgetful)
                if at <= self.now:
                    self.actions.append(action)
                    at = self.now + _GRACE * self.snapshot.turn
                self.again_at = min(self.again_at, at)
        for option in options:
            if self.now < option.at < math.inf:
                self.again_at = min(self.again_at, option.at)

    def _end_of_turn(self, model: Model, waiting: Model, *, keep_kv: bool) -> tuple[Action, float]:
        """What comes next for a busy model, and when; infinite: not before it has ended by itself."""
        began = max(waiting.waiting_since or self.now, model.awake_since)
        end = max(began + self.snapshot.turn, model.awake_since + self.snapshot.min_awake)
        if model.catching_up:
            return EndTurn(model.name), math.inf
        if not model.turn_over:
            return EndTurn(model.name), end
        level, pushed = self.levels.level_for(model, 2 if self.shared else model.preferred_level)
        at = (end if model.by_hand else model.turn_ended_at) + _GRACE * self.snapshot.turn
        if waiting.pinned and not self.room.is_enough_for(model, beside=waiting):
            at = math.inf  # it would never come back
        return Suspend(model.name, 2 if pushed else level, keep_kv), at

    def _sleep(self, model: Model, cause: Cause) -> Iterator[Action]:
        """Its sleep; or first the deepening of those that must make way for its parked weights."""
        self.claimed.add(model.name)
        if model.parked:
            yield Deepen(model.name, cause)
            return
        wanted = 2 if self.shared and cause != "idle" else model.preferred_level
        level, pushed = self.levels.level_for(model, wanted)
        for other in pushed:
            if other.name not in self.claimed:
                self.claimed.add(other.name)
                yield Deepen(other.name, "room")
        if not pushed:
            if level == 1:
                self.levels.park(model)
            yield Sleep(model.name, level, cause)
