"""One model: its engine, its state, its queue.

The state machine of a served model. It does what it is told, one engine operation at a time, and tells
``changed`` when something has come about that others may want to act on. It never decides about memory and
knows nothing of other models. All of it runs on one loop, and what must be seen together changes between two
awaits, so nothing here needs a lock.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

from engine import (
    ALL_TAGS,
    CheckpointError,
    DeviceError,
    Engine,
    Estimate,
    Footprint,
    Level,
    OutOfMemory,
    Tag,
    TransitionReport,
)
from gateway.config import ModelConfig
from gateway.errors import ApiError, ModelWakeFailed, QueueFull
from gateway.fleet.budget import Opened
from gateway.fleet.cooldown import CoolDown
from gateway.fleet.events import Events, Transition, WakeRecord
from gateway.fleet.lease import Lease, Ticket
from gateway.fleet.queue import NO_TAGS, Queue
from gateway.fleet.state import Cause, State
from gateway.fleet.usage import Usage

logger = logging.getLogger("dormouse.fleet")

NO_REPORT = TransitionReport(seconds=0.0, bytes=0)
_leavings = itertools.count(1)


@dataclass(slots=True, eq=False)
class Drain:
    """No newcomer is admitted. With a ``level``, the model goes to sleep as soon as nothing is in flight."""

    cause: Cause
    level: Level | None
    keep_kv: bool | None = None
    """Not when nothing is in flight any more: what is gets suspended, with its KV or without."""
    committed: bool = False
    """The engine has been told; there is no way back."""
    done: asyncio.Future[Level] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def can_be_rescued(self) -> bool:
        return self.cause in ("idle", "deepen") and not self.committed

    def fail(self, error: ApiError) -> None:
        self.done.set_exception(error)
        self.done.exception()  # marks it as seen; often nobody waits


class ServedModel:
    def __init__(
        self,
        config: ModelConfig,
        *,
        open_engine: Callable[[ModelConfig], Opened],
        now: Callable[[], float],
        events: Events,
        changed: Callable[[], None],
    ) -> None:
        self.config = config
        self.name = config.name
        self.state = State.COLD
        self.level: Level | None = None
        self.held = NO_TAGS
        """What the engine has beyond its sleep: all tags when awake, one of them when half-woken."""
        self.engine: Engine | None = None
        self.device: str | None = None
        self.loaded = False
        self.estimate: Estimate | None = None
        """What its files' headers tell, before it is loaded."""
        self.queue = Queue(config.name, config.max_running)
        self.drain: Drain | None = None
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
        self.usage = Usage()
        self.last_used = self.idle_since = self.awake_since = self.turn_ended_at = -math.inf
        self.state_since = now()
        self._open_engine = open_engine
        self._now = now
        self._events = events
        self._changed = changed
        self._opening: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._released = asyncio.Event()
        self._keep_alive: float | None = None
        self._cool_down = CoolDown()
        self._waking_seconds = 0.0

    # What can be seen

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
    def leaving(self) -> bool:
        """It is served no more, and nothing is in flight that would keep it."""
        return self.gone is not None and not self.queue.active

    @property
    def needs_plan(self) -> bool:
        """It waits for something that others may give it."""
        return bool(self.drain or (self.state is not State.AWAKE and self.waiting_since is not None))

    @property
    def at_rest(self) -> bool:
        """Nobody asks for it, nothing is under way, and it holds nothing that could be taken from it."""
        return not (
            self.queue.waiting
            or self.queue.active
            or self.operation
            or self.drain
            or self.held
            or self.level == 1
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
    def weights_bytes(self) -> int:
        """Their size, wherever they are."""
        footprint = self.footprint()
        estimated = self.estimate.weights_bytes if self.estimate else 0
        return max(footprint.weights, footprint.host_copy, estimated)

    @property
    def cooling_seconds(self) -> float:
        return self._cool_down.left(self._now()) if self.state is State.FAILED else 0.0

    def footprint(self) -> Footprint:
        return self.engine.footprint() if self.engine else Footprint()

    def sleep_deadline(self) -> float | None:
        """When it sleeps, or deepens its sleep, if nobody asks for it till then."""
        if self.queue.waiting or self.queue.active or self.moving or self.drain or self.config.pinned:
            return None
        if self.held:
            return self.idle_since + (
                self.config.idle_timeout if self._keep_alive is None else self._keep_alive
            )
        return self.state_since + self.config.deepen_after if self.level == 1 else None

    def is_due(self) -> bool:
        deadline = self.sleep_deadline()
        return deadline is not None and deadline <= self._now()

    # Those who come and go

    def accept(self, keep_alive: float | None) -> Ticket:
        """A request joins: admitted at once if it may be, else queued. Raises what need not be waited for."""
        if self.cooling_seconds:
            raise self._wake_failed()
        if self.queue.queued >= self.config.max_waiting:
            raise QueueFull(f"{self.queue.queued} requests are waiting for {self.name}", retry_after=1.0)
        self._keep_alive = keep_alive
        if not self.queue.in_flight:
            self.usage.asked_after(self._now() - self.last_used)
        return self.ask("request", self.config.max_wait)

    def ask(self, cause: Cause, max_wait: float, tags: frozenset[Tag] = ALL_TAGS) -> Ticket:
        """Somebody wants it awake. Only a request stays when it has been granted."""
        if self.gone:
            raise self.gone()
        if self.drain and self.drain.can_be_rescued:
            self.resume()
        now = self._now()
        ticket = Ticket(
            cause=cause, since=now, deadline=now + max_wait, tags=tags, waking_before=self._waking_seconds
        )
        self.queue.waiting.append(ticket)
        self._admit()
        return ticket

    def lease(self, ticket: Ticket) -> Lease:
        assert self.engine is not None
        waited = self._now() - ticket.since
        waking = min(waited, self._waking_seconds - ticket.waking_before)
        return Lease(self.engine, ticket, queue_seconds=waited - waking, wake_seconds=waking)

    def release(self, ticket: Ticket) -> None:
        """It has gone, from wherever it was."""
        if self.queue.leave(ticket):
            self._released.set()
            self.last_used = self.idle_since = self._now()
            self.kv_in_use = 0
            self._admit()
            self._sleep_when_drained()
        if not self.queue.waiting:
            self.shortage = 0

    # What it is told to do

    async def opened(self) -> Engine:
        """The engine, opened once for all who ask. Raises ModelWakeFailed."""
        if self.engine is None and self._opening is None and not self.gone:
            if self.cooling_seconds:
                raise self._wake_failed()
            self._opening = asyncio.create_task(self._open())
        if self._opening:
            await asyncio.shield(self._opening)
        if self.gone:
            raise self.gone()
        if self.engine is None:
            raise self._wake_failed()
        return self.engine

    def prepare(self) -> None:
        """Do all of a first wake that needs no memory on the device."""
        self._operate(self._prepare)

    def wake(self) -> None:
        """Wake what those who wait want. Needs room on the device."""
        footprint = self.footprint()
        self.target_bytes = footprint.device + footprint.to_wake
        self._operate(partial(self._wake, self.queue.wanted_tags or ALL_TAGS))

    def sleep(self, level: Level, cause: Cause, bytes_asleep: int) -> Drain:
        """Go to sleep as soon as nothing is in flight; joins a sleep by hand that is to come already."""
        if self.drain and self.drain.level and self.drain.cause == "manual":
            self.drain.level = 2 if 2 in (self.drain.level, level) else 1
        else:
            self.drain = Drain(cause, level)
        drain = self.drain
        self.target_bytes = bytes_asleep
        if self.state is State.AWAKE:
            self._enter(State.DRAINING, cause)
        self._sleep_when_drained()
        return drain

    def suspend(self, level: Level, bytes_asleep: int, *, keep_kv: bool) -> None:
        """Go to sleep at the end of the step under way. What is in flight goes on with the next wake."""
        self.drain = Drain("turn", level, keep_kv)
        self.target_bytes = bytes_asleep + (self.footprint().kv if keep_kv else 0)
        self.turn_ended_at = self._now()
        self._sleep_when_drained()

    def forget_kv(self) -> None:
        """Of what is suspended."""
        footprint = self.footprint()
        self.target_bytes = footprint.device - footprint.kept
        self._operate(self._forget_kv)

    def trim_kv(self) -> None:
        self.target_bytes = self.footprint().device
        self._operate(self._trim_kv)

    def end_turn(self) -> None:
        """Admit nobody any more; what comes next is decided when it has drained."""
        self.drain = Drain("turn", None)
        self.turn_ended_at = self._now()
        self._enter(State.DRAINING, "turn")

    def resume(self) -> None:
        """Admit again: what the drain was for has gone."""
        if self.state is State.DRAINING:
            self._enter(State.AWAKE, self.drain.cause if self.drain else "request")
        self.drain = None
        self._admit()

    def fail(self, reason: str) -> None:
        """It could not be woken: refuse all who wait and cool down. It keeps the level that it fell from."""
        self._cool_down.begin(self._now())
        self.last_error = reason
        self.shortage = 0
        self._enter(State.FAILED, "failure")
        self.queue.turn_away(self._wake_failed)
        if self.suspended:
            self.suspended = False
            self.queue.abort(self._wake_failed)

    def settle(self) -> None:
        """No wake followed the preparations: there was no room yet."""
        if self.begun:
            self._rest("request")

    async def quiet(self) -> None:
        """Return when no operation is under way."""
        while self.operation:
            await asyncio.wait([self.operation])

    def try_again(self) -> None:
        """After a failure: end the cool-down and adopt the files as they are now."""
        if self.state is State.FAILED and not self.moving and not self.queue.active:
            self.target_bytes = self.footprint().device
            self._operate(self._adopt_files)

    def dismiss(self, why: Callable[[], ApiError]) -> None:
        """Serve it no more: refuse all who wait, and whoever comes. Another one may have its name now.
        ``leave`` is to follow."""
        self.gone = why
        self.name = f"{self.name} (leaving {next(_leavings)})"
        self.queue.turn_away(why)

    async def leave(self) -> None:
        """Close when what is in flight and what is under way is over."""
        while self.queue.active:
            self._released.clear()
            await self._released.wait()
        while under_way := self._opening or self.operation:
            await asyncio.wait([under_way])
        began, size = self._now(), self.footprint().device
        await self.close()
        if self.state is not State.COLD:
            self._enter(State.COLD, "config", self._now() - began, size)

    async def close(self) -> None:
        """Give everything back, once; what is under way is cut."""
        self._closing = self._closing or asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    # How it does it

    async def _close(self) -> None:
        if self.drain and not self.drain.committed:
            self.drain.fail(ApiError(f"{self.name} is closed"))
            self.drain = None  # or it would begin when what is under way has ended
        under_way = [task for task in (self._opening, self.operation) if task]
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        if self.engine:
            await self.engine.close()
        self.engine = self.level = None
        self.held, self.loaded, self.closed = NO_TAGS, False, True

    def _operate(self, work: Callable[[], Awaitable[None]]) -> None:
        assert self.operation is None, f"{self.name}: two operations at once"
        self.operation = asyncio.create_task(self._run(work), name=f"dormouse:{self.name}")

    async def _run(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except ApiError:
            pass  # it could not be opened, or is served no more, and all is said
        except OutOfMemory as error:
            self.fail(f"not enough memory: {error}")
        except CheckpointError as error:
            logger.error("%s: %s", self.name, error)
            self.fail(error.reason)
        except DeviceError as error:
            self.device_error = str(error)
            self.fail("the device failed")
        except Exception:
            logger.exception("%s: an operation failed", self.name)
            self.fail("the engine failed")
        finally:
            self.operation = None
            self._admit()
            self._sleep_when_drained()
            self._changed()

    async def _open(self) -> None:
        try:
            opened = await asyncio.to_thread(self._open_engine, self.config)
            self.engine, self.device, self.estimate = opened.engine, opened.device, opened.estimate
        except CheckpointError as error:
            logger.error("%s: %s", self.name, error)
            self.fail(error.reason)
        except Exception:
            logger.exception("%s: cannot be opened", self.name)
            self.fail("the model cannot be opened")
        finally:
            self._opening = None

    async def _prepare(self) -> None:
        began = self._now()
        self._enter(State.WAKING, self._cause())
        engine = await self.opened()
        await engine.load()
        self.loaded = True
        self._waking_seconds += self._now() - began

    async def _wake(self, tags: frozenset[Tag]) -> None:
        assert self.engine is not None
        began, level, cause = self._now(), self.level, self._cause()
        self._enter(State.WAKING, cause)
        try:
            report = await self.engine.wake(tags)
        except OutOfMemory as error:
            if self.shortage:
                raise
            logger.warning("%s: %s; making more room", self.name, error)
            self.shortage = max(1, error.needed - error.available)
            self._rest("memory")
            return
        seconds = self._now() - began
        self.last_wake = WakeRecord(
            seconds=seconds, bytes=report.bytes, level=level, cause=cause, phases=report.phases
        )
        self._waking_seconds += seconds
        self.held |= tags
        self.idle_since = self._now()
        self.last_error = None
        self.shortage = 0
        self._cool_down.clear()
        if self.held == ALL_TAGS:
            await self.engine.resume()
            self.suspended = False
            self.level = None
            self.awake_since = self._now()
            self.usage.woken(level or 2, self.weights_bytes, seconds)
            self.last_used = max(self.last_used, self.awake_since)
            self._enter(State.AWAKE, cause, seconds, report.bytes)
        else:
            self._rest(cause, seconds, report.bytes)

    async def _sleep(self) -> None:
        drain = self.drain
        if drain is None or drain.level is None:
            return  # rescued
        assert self.engine is not None
        drain.committed = True
        began, level = self._now(), drain.level
        try:
            if drain.keep_kv is not None and self.queue.active:
                await self.engine.suspend(keep_kv=drain.keep_kv)
                self.suspended = True
            assert self.suspended or not self.queue.active
            report = await self.engine.sleep(level)
        except BaseException:
            self.drain, self.held = None, NO_TAGS  # nobody knows what is left: only a wake makes it whole
            drain.fail(ApiError(f"{self.name} could not be put to sleep"))
            raise
        self.drain = None
        self.held, self.level, self.kv_in_use = NO_TAGS, level, 0
        self._rest(drain.cause, self._now() - began, report.bytes)
        drain.done.set_result(level)

    async def _forget_kv(self) -> None:
        assert self.engine is not None
        await self.engine.suspend(keep_kv=False)

    async def _adopt_files(self) -> None:
        self._cool_down.clear()
        self.last_error = None
        if self.engine and self.loaded:
            await self.engine.reload_weights()
        elif self.engine:
            engine, self.engine = self.engine, None  # what it has read may be what was wrong
            await engine.close()
        self._rest("config")

    async def _trim_kv(self) -> None:
        assert self.engine is not None
        try:
            await self.engine.trim_kv()
        except Exception:
            logger.exception("%s: its KV could not be trimmed", self.name)
        self.kv_in_use = self.footprint().kv

    def _admit(self) -> None:
        if self.drain is None and self.state is not State.WAKING:
            self.queue.admit(awake=self.state is State.AWAKE, held=self.held)
        if self.queue.active:
            self.last_used = self._now()

    def _sleep_when_drained(self) -> None:
        if self.drain is None or self.drain.level is None or self.operation is not None:
            return
        if not self.queue.active or self.suspended or self.drain.keep_kv is not None:
            self._operate(self._sleep)

    def _cause(self) -> Cause:
        if self.queue.waiting:
            return self.queue.waiting[0].cause
        return "turn" if self.suspended else "request"

    def _wake_failed(self) -> ModelWakeFailed:
        return ModelWakeFailed(
            f"{self.name} could not be woken: {self.last_error}", retry_after=self.cooling_seconds
        )

    def _rest(self, cause: Cause, seconds: float = 0.0, size: int = 0) -> None:
        """Into the state that it has when nothing is done with it."""
        resting = State.ASLEEP if self.level or self.held else State.COLD
        self._enter(State.FAILED if self._cool_down.failures else resting, cause, seconds, size)

    def _enter(self, state: State, cause: Cause, seconds: float = 0.0, size: int = 0) -> None:
        before, self.state = self.state, state
        if before is state is State.WAKING:
            return
        self.state_since = self._now()
        self._events.record(
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
