"""What is known of one model, and what follows from it.

The state of a served model: what its engine holds, who waits, when what happened. It has no will of its own:
``ServedModel`` and its operations change it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Final

from engine import Engine, Estimate, Footprint, Level
from gateway.config import ModelConfig
from gateway.errors import ApiError, ModelWakeFailed
from gateway.fleet.adoption import Adoption
from gateway.fleet.cooldown import CoolDown
from gateway.fleet.drain import Drain
from gateway.fleet.events import Events, Transition, WakeRecord
from gateway.fleet.queue import NO_TAGS, Queue
from gateway.fleet.state import Cause, State, WaitingFor
from gateway.fleet.usage import Usage

_WAITING_FOR: Final[dict[State, WaitingFor]] = {
    State.WAKING: "wake",
    State.DRAINING: "turn",
    State.AWAKE: "place",
}
"""By its state; in any other its wake would have begun if there were room."""


class ModelState:
    def __init__(self, config: ModelConfig, *, now: Callable[[], float], events: Events) -> None:
        self.config = config
        self.name = config.name
        self.pinned = config.pinned
        """As configured, until somebody says otherwise by hand."""
        self.state = State.COLD
        self.level: Level | None = None
        self.held = NO_TAGS
        """What the engine has beyond its sleep: all tags when awake, one of them when half-woken."""
        self.engine: Engine | None = None
        self.device: str | None = None
        self.loaded = False
        self.estimate: Estimate | None = None
        """What its files' headers tell, before it is loaded."""
        self.length: int | None = None
        """What its small files tell of ``max_model_len``, before it is opened; None: not known."""
        self.at_opening = 0
        """Requests that wait until it is open, before they can be made ready for the queue."""
        self.queue = Queue(config.name, config.max_running)
        self.drain: Drain | None = None
        self.hand: Drain | None = None
        """A sleep by hand: it is to come when nothing is in flight any more, not even suspended."""
        self.adoption: Adoption | None = None
        """Asked for by hand, to come before that sleep."""
        self.operation: asyncio.Task[None] | None = None
        self.target_bytes = 0
        """What it will hold on the device after what is under way."""
        self.shortage = 0
        """What the engine found missing for a wake that should have fitted."""
        self.kv_in_use = 0
        self.gone: Callable[[], ApiError] | None = None
        """Why it is served no more: it finishes what is in flight, and closes."""
        self.closed = False
        self.last_wake: WakeRecord | None = None
        self.last_error: str | None = None
        self.device_error: str | None = None
        self.suspended = False
        """What is in flight goes on with the next wake."""
        self.catching_up: asyncio.Task[None] | None = None
        """What was suspended has not got any further yet since the wake: its turn has not begun."""
        self.usage = Usage()
        self.last_used = self.idle_since = self.awake_since = self.turn_ended_at = -math.inf
        self.state_since = now()
        self.now = now
        self.events = events
        self.keep_alive: float | None = None
        """The idle timeout until the next request, where the last one has named one."""
        self.cool_down = CoolDown()
        self.waking_seconds = 0.0
        """Of all its life."""

    @property
    def half_woken(self) -> bool:
        return bool(self.held) and self.state not in (State.AWAKE, State.DRAINING)

    @property
    def begun(self) -> bool:
        """Prepared for its first wake, which has not followed yet."""
        return self.state is State.WAKING and self.operation is None

    @property
    def moving(self) -> bool:
        """Something is under way that ends by itself."""
        return (
            self.operation is not None
            or self.leaving
            or (self.drain is not None and self.drain.level is not None)
        )

    @property
    def by_hand(self) -> bool:
        """Somebody waits until nothing is in flight any more."""
        return self.hand is not None or self.adoption is not None

    @property
    def leaving(self) -> bool:
        """It is served no more, and nothing is in flight that would keep it."""
        return self.gone is not None and not self.queue.active

    @property
    def needs_plan(self) -> bool:
        """It waits for something that others may give it."""
        waits = self.state is not State.AWAKE and self.waiting_since is not None
        return bool(waits or self.drain or self.by_hand)

    @property
    def at_rest(self) -> bool:
        """Nobody asks for it and nothing is under way, so that it stays as it is."""
        return not (
            self.queue.waiting
            or self.queue.active
            or self.operation
            or self.drain
            or self.by_hand
            or (self.gone and not self.closed)
        )

    @property
    def waiting_since(self) -> float | None:
        """Since when it has waited for its turn, if anybody waits for it."""
        if self.suspended and self.queue.active:
            return self.turn_ended_at
        since = self.queue.since
        return None if since is None else max(since, self.turn_ended_at)

    @property
    def waiting_for(self) -> WaitingFor | None:
        """What those who wait for it, or what is suspended, wait for."""
        if self.at_opening:
            return "opening"
        if self.waiting_since is None:
            return None
        return _WAITING_FOR.get(self.state, "room")

    @property
    def weights_bytes(self) -> int:
        """Their size, wherever they are."""
        footprint = self.footprint()
        estimated = self.estimate.weights_bytes if self.estimate else 0
        return max(footprint.weights, footprint.host_copy, estimated)

    @property
    def max_model_len(self) -> int | None:
        """Tokens of prompt and answer together, as far as is known."""
        if self.engine:
            return self.engine.info.max_model_len
        return self.config.max_model_len or self.length

    @property
    def cooling_seconds(self) -> float:
        return self.cool_down.left(self.now()) if self.state is State.FAILED else 0.0

    def footprint(self) -> Footprint:
        return self.engine.footprint() if self.engine else Footprint()

    def sleep_deadline(self) -> float | None:
        """When it sleeps, or deepens its sleep, if nobody asks for it till then."""
        if self.queue.waiting or self.queue.active or self.moving or self.drain or self.by_hand:
            return None
        if self.pinned:
            return None
        if self.held:
            return self.idle_since + (
                self.config.idle_timeout if self.keep_alive is None else self.keep_alive
            )
        return self.state_since + self.config.deepen_after if self.level == 1 else None

    def is_due(self) -> bool:
        deadline = self.sleep_deadline()
        return deadline is not None and deadline <= self.now()

    def cause_of_wake(self) -> Cause:
        if self.queue.waiting:
            return self.queue.waiting[0].cause
        return "turn" if self.suspended else "request"

    def wake_failed(self) -> ModelWakeFailed:
        return ModelWakeFailed(
            f"{self.name} could not be woken: {self.last_error}", retry_after=self.cooling_seconds
        )

    def rest(self, cause: Cause, seconds: float = 0.0, size: int = 0) -> None:
        """Into the state that it has when nothing is done with it."""
        resting = State.ASLEEP if self.level or self.held else State.COLD
        self.enter(State.FAILED if self.cool_down.failures else resting, cause, seconds, size)

    def enter(self, state: State, cause: Cause, seconds: float = 0.0, size: int = 0) -> None:
        before, self.state = self.state, state
        if before is state is State.WAKING:
            return
        self.state_since = self.now()
        self.events.record(
            Transition(
                model=self.name,
                before=before,
                after=state,
                level=self.level,
                cause=cause,
                seconds=seconds,
                bytes=size,
            )
        )

    def fail(self, reason: str) -> None:
        """It could not be woken: refuse all who wait and cool down. It keeps the level that it fell from."""
        self.cool_down.begin(self.now())
        self.last_error = reason
        self.shortage = 0
        self.enter(State.FAILED, "failure")
        self.queue.turn_away(self.wake_failed)
        if self.suspended:
            self.suspended = False
            self.queue.abort(self.wake_failed)
