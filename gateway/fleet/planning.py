"""When plans are made, and how they are carried out.

Whatever happens to a model asks for a new plan; plans are made on the loop, at most one a turn of it. Models
are moved from here only, so that no two plans can disagree about memory.
"""

from __future__ import annotations

import asyncio
import math
from typing import Literal

from engine import Level, OutOfMemory
from gateway.config import TurnConfig
from gateway.fleet import actions, policy
from gateway.fleet.budget import Memory
from gateway.fleet.drain import Drain
from gateway.fleet.idle import Deadlines, Timers
from gateway.fleet.ranking import Ranking
from gateway.fleet.roster import Roster
from gateway.fleet.served_model import ServedModel
from gateway.fleet.snapshot import Model, Snapshot
from gateway.fleet.state import Cause

DEEPEST: Level = 2
PLAN_EVERY = 1.0
"""Seconds after a plan at which the end of a request asks for another though nobody waits: KV may have grown,
and may be given back."""
LOOK_EVERY = 1.0
"""Seconds between two looks at what the system has left."""
FEW = 100
"""Models that it costs next to nothing to look at."""
PLAN_PAUSE = 0.001
"""Seconds for each model looked at that lie between two plans for which nobody waits: a hundred times what
the look takes."""


class Planning:
    def __init__(
        self, models: Roster, memory: Memory, timers: Timers, turns: TurnConfig, ranking: Ranking
    ) -> None:
        self.turns = turns
        self._models = models
        self._memory = memory
        self._timers = timers
        self._ranking = ranking
        self._naps = Deadlines(
            timers,
            "idle",
            lambda name: model.sleep_deadline() if (model := models.get(name)) else None,
            self._nap,
        )
        self._waits = Deadlines(
            timers,
            "wait",
            lambda name: model.queue.deadline if (model := models.get(name)) else None,
            self._expire,
        )
        self._closed = False
        self._is_due = False
        self._pressed = False
        """Some model needs a plan: whatever ends may be what it waits for."""
        self._planned_at = -math.inf
        self._in_time_at = math.inf
        """When a plan is to come that nobody waits for."""

    def start(self) -> None:
        self._look_at_memory()

    def close(self) -> None:
        self._closed = True

    # What has happened

    def soon(self) -> None:
        """Something that a plan may have an answer to."""
        if not self._is_due and not self._closed:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._plan)

    def waits(self, model: ServedModel) -> None:
        """Somebody has begun to wait for it."""
        self._waits.arm(model.name)
        if model.needs_plan:
            self.soon()

    def released(self, model: ServedModel) -> None:
        """Somebody has left it."""
        self._naps.arm(model.name)
        if self._pressed:
            self.soon()
        else:
            self._in_time(PLAN_EVERY)

    def rearm(self, model: ServedModel) -> None:
        """Its timeouts may have changed."""
        self._naps.arm(model.name)

    def sleep_by_hand(self, model: ServedModel, level: Level) -> Drain:
        """As soon as nothing is in flight."""
        drain = model.sleep_by_hand(level, self._bytes_asleep(model, level))
        self.soon()
        return drain

    def level_that_fits(self, model: ServedModel, wanted: Level | Literal["auto"]) -> Level:
        """The lightest level not lighter than ``wanted`` at which it may sleep now."""
        assert model.device is not None
        views = self._models.views(self._timers.now())
        return policy.level_that_fits(self._snapshot(model.device, views), model.name, wanted)

    # Plans

    def _in_time(self, pause: float = 0.0) -> None:
        """Nobody waits for it: so long after the last plan, and the more models there are to look at, the
        more seldom."""
        models = self._models.seen
        at = self._planned_at + max(pause, PLAN_PAUSE * models if models >= FEW else 0.0)
        if at <= self._timers.now():
            self.soon()
        elif at < self._in_time_at:
            self._in_time_at = at
            self._timers.at("plan in time", at, self.soon)

    def _look_at_memory(self) -> None:
        """Whatever else runs on this machine may have grown."""
        if (devices := self._models.devices) and self._memory.is_short(devices):
            self._in_time()
        self._timers.at("memory", self._timers.now() + LOOK_EVERY, self._look_at_memory)

    def _nap(self, name: str) -> None:
        self._models.rouse(self._models[name])
        self._in_time()

    def _expire(self, name: str) -> None:
        self._models[name].queue.expire(self._timers.now())
        self.soon()

    def _plan(self) -> None:
        self._is_due = False
        if self._closed:
            return
        now = self._planned_at = self._timers.now()
        self._in_time_at = math.inf
        for model in self._models.stirring:
            if model.queue.waiting and not model.loaded and not model.moving:
                model.prepare()
        views = self._models.views(now)
        plans = [policy.plan(self._snapshot(device, views), self._ranking) for device in views]
        for plan in plans:
            for action in plan.actions:
                self._carry_out(action)
        self._look_after(self._models.stirring)
        self._models.let_rest(now)
        again_at = min((plan.again_at for plan in plans), default=math.inf)
        if again_at < math.inf:
            self._timers.at("plan", again_at, self.soon)

    def _look_after(self, models: list[ServedModel]) -> None:
        for model in models:
            model.settle()
            if not model.is_due():
                self._naps.arm(model.name)
            self._waits.arm(model.name)
        self._pressed = any(model.needs_plan for model in models)

    def _snapshot(self, device: str, views: dict[str, list[Model]]) -> Snapshot:
        models = views.get(device, [])
        used = self._models.residue(device) + sum(model.device_bytes for model in models)
        parked = sum(model.host_bytes for others in views.values() for model in others)
        return Snapshot(
            now=self._timers.now(),
            models=tuple(models),
            budget=self._memory.budget(device, used, parked),
            min_awake=self.turns.min_awake,
            turn=self.turns.turn,
        )

    def _carry_out(self, action: actions.Action) -> None:
        model = self._models[action.name]
        self._models.rouse(model)
        match action:
            case actions.Wake():
                model.wake()
            case actions.Sleep(_, level, cause):
                self._sleep(model, level, cause)
            case actions.Deepen(_, cause):
                self._sleep(model, DEEPEST, cause)
            case actions.TrimKv():
                model.trim_kv()
            case actions.TrimCopy():
                model.trim_copy()
            case actions.EndTurn():
                model.end_turn()
            case actions.Suspend(_, level, keep_kv):
                model.suspend(level, self._bytes_asleep(model, level), keep_kv=keep_kv)
            case actions.ForgetKv():
                model.forget_kv()
            case actions.Resume():
                model.resume()
            case actions.Refuse(_, needed, possible):
                too_large = self._memory.too_large(model.config.device, model.estimate)
                model.fail(f"not enough memory: {too_large or OutOfMemory(needed, possible)}")
                self.soon()

    def _sleep(self, model: ServedModel, level: Level, cause: Cause) -> None:
        model.sleep(level, cause, self._bytes_asleep(model, level))

    def _bytes_asleep(self, model: ServedModel, level: Level) -> int:
        assert model.device is not None
        return self._memory.bytes_asleep(model.device, model.footprint(), level)
