"""One model as the fleet knows it: who comes and goes, and what it is told to do.

It does what it is told, one engine operation at a time, and tells ``changed`` when something has come about
that others may want to act on. It never decides about memory and knows nothing of other models. All of it
runs on one loop, and what must be seen together changes between two awaits, so nothing here needs a lock.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from functools import partial

from engine import ALL_TAGS, Engine, Level, Tag
from gateway.config import ModelConfig
from gateway.errors import ApiError, QueueFull
from gateway.fleet.adoption import Adoption
from gateway.fleet.budget import Opened
from gateway.fleet.drain import Drain
from gateway.fleet.events import Events
from gateway.fleet.lease import Lease, Ticket
from gateway.fleet.model_state import ModelState
from gateway.fleet.operations import Operations
from gateway.fleet.queue import NO_TAGS
from gateway.fleet.state import Cause, State

_leavings = itertools.count(1)


class ServedModel(ModelState):
    def __init__(
        self,
        config: ModelConfig,
        *,
        open_engine: Callable[[ModelConfig], Opened],
        now: Callable[[], float],
        events: Events,
        changed: Callable[[], None],
    ) -> None:
        super().__init__(config, now=now, events=events)
        self._operations = Operations(self, open_engine, ended=self._after_an_operation, changed=changed)
        self._changed = changed
        self._closing: asyncio.Task[None] | None = None
        self._released = asyncio.Event()

    def configure(self, config: ModelConfig) -> None:
        """Serve by ``config`` from now on. A pin by hand stays unless the configured one has changed."""
        if config.pinned != self.config.pinned:
            self.pinned = config.pinned
        self.config = config

    # Those who come and go

    def accept(self, keep_alive: float | None) -> Ticket:
        """A request joins: admitted at once if it may be, else queued. Raises what need not be waited for."""
        if self.cooling_seconds:
            raise self.wake_failed()
        if self.queue.queued >= self.config.max_waiting:
            raise QueueFull(f"{self.queue.queued} requests are waiting for {self.name}", retry_after=1.0)
        self.keep_alive = keep_alive
        if not self.queue.in_flight:
            self.usage.asked_after(self.now() - self.last_used)
        return self.ask("request", self.config.max_wait)

    def ask(self, cause: Cause, max_wait: float, tags: frozenset[Tag] = ALL_TAGS) -> Ticket:
        """Somebody wants it awake. Only a request stays when it has been granted."""
        if self.gone:
            raise self.gone()
        if self.drain and self.drain.can_be_rescued:
            self.resume()
        now = self.now()
        ticket = Ticket(
            cause=cause, since=now, deadline=now + max_wait, tags=tags, waking_before=self.waking_seconds
        )
        self.queue.waiting.append(ticket)
        self._admit()
        return ticket

    def lease(self, ticket: Ticket) -> Lease:
        assert self.engine is not None
        waited = self.now() - ticket.since
        waking = min(waited, self.waking_seconds - ticket.waking_before)
        return Lease(
            self.engine,
            ticket,
            queue_seconds=waited - waking,
            wake_seconds=waking,
            set_behind=partial(self._set_behind, ticket),
        )

    def _set_behind(self, ticket: Ticket, behind: bool) -> None:
        self.queue.set_behind(ticket, behind)
        self._admit()

    def release(self, ticket: Ticket) -> None:
        """It has gone, from wherever it was."""
        if self.queue.leave(ticket):
            self._released.set()
            self.last_used = self.idle_since = self.now()
            self.kv_in_use = 0
            self._admit()
            self._sleep_when_drained()
            self._heed_hand()
        if not self.queue.waiting:
            self.shortage = 0

    # What it is told to do

    async def opened(self) -> Engine:
        """The engine, opened once for all who ask. Raises ModelWakeFailed."""
        return await self._operations.opened()

    def prepare(self) -> None:
        """Do all of a first wake that needs no memory on the device."""
        self._operations.begin(self._operations.prepare)

    def wake(self) -> None:
        """Wake what those who wait want. Needs room on the device."""
        footprint = self.footprint()
        self.target_bytes = footprint.device + footprint.to_wake
        self._operations.begin(partial(self._operations.wake, self.queue.wanted_tags or ALL_TAGS))

    def sleep(self, level: Level, cause: Cause, bytes_asleep: int) -> None:
        """Go to sleep. Nothing is in flight."""
        self._go_to_sleep(Drain(cause, level, bytes_asleep))

    def sleep_by_hand(self, level: Level, bytes_asleep: int) -> Drain:
        """Go to sleep as soon as nothing is in flight; joins a sleep by hand that is to come already."""
        hand = self.hand
        if hand is None or hand.level == 1:
            done = hand.done if hand else asyncio.get_running_loop().create_future()
            self.hand = hand = Drain("manual", level, bytes_asleep, done=done)
        self._heed_hand()
        return hand

    def adopt_by_hand(self) -> Adoption:
        """Adopt the files as they are now, as soon as nothing is in flight; joins what is to come already."""
        self.adoption = adoption = self.adoption or Adoption()
        self._heed_hand()
        return adoption

    def suspend(self, level: Level, bytes_asleep: int, *, keep_kv: bool) -> None:
        """Go to sleep at the end of the step under way. What is in flight goes on with the next wake."""
        self.turn_ended_at = self.now()
        kept = self.footprint().kv if keep_kv else 0
        self._go_to_sleep(Drain("turn", level, bytes_asleep + kept, keep_kv))

    def forget_kv(self) -> None:
        """Of what is suspended."""
        footprint = self.footprint()
        self.target_bytes = footprint.device - footprint.kept
        self._operations.begin(self._operations.forget_kv)

    def trim_kv(self) -> None:
        self.target_bytes = self.footprint().device
        self._operations.begin(self._operations.trim_kv)

    def trim_copy(self) -> None:
        self.target_bytes = self.footprint().device
        self._operations.begin(self._operations.trim_copy)

    def end_turn(self) -> None:
        """Admit nobody any more; what comes next is decided when it has drained."""
        self.drain = Drain("turn", None)
        self.turn_ended_at = self.now()
        self.enter(State.DRAINING, "turn")

    def resume(self) -> None:
        """Admit again: what the drain was for has gone."""
        if self.state is State.DRAINING and not self.by_hand:
            self.enter(State.AWAKE, self.drain.cause if self.drain else "request")
        self.drain = None
        self._admit()

    def settle(self) -> None:
        """No wake followed the preparations: there was no room yet."""
        if self.begun:
            self.rest("request")

    async def quiet(self) -> None:
        """Return when no operation is under way."""
        while self.operation:
            await asyncio.wait([self.operation])

    def try_again(self) -> None:
        """After a failure: end the cool-down and adopt the files as they are now."""
        if self.state is State.FAILED and not self.moving and not self.queue.active:
            self.target_bytes = self.footprint().device
            self._operations.begin(self._operations.adopt_files)

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
        while under_way := self._operations.under_way:
            await asyncio.wait(under_way)
        began, size = self.now(), self.footprint().device
        await self.close()
        if self.state is not State.COLD:
            self.enter(State.COLD, "config", self.now() - began, size)

    async def close(self) -> None:
        """Give everything back, once; what is under way is cut."""
        self._closing = self._closing or asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    # How it does it

    def _after_an_operation(self) -> None:
        self._admit()
        self._sleep_when_drained()
        self._heed_hand()
        self._changed()

    async def _close(self) -> None:
        for drain in (self.hand, self.drain):
            if drain and not drain.committed:
                drain.fail(ApiError(f"{self.name} is closed"))
        if self.adoption:
            self.adoption.fail(ApiError(f"{self.name} is closed"))
        self.hand = self.adoption = None
        if self.drain and not self.drain.committed:
            self.drain = None  # or it would begin when what is under way has ended
        under_way = self._operations.under_way
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        if self.engine:
            await self.engine.close()
        self.engine = self.level = None
        self.held, self.loaded, self.closed = NO_TAGS, False, True

    def _admit(self) -> None:
        if self.drain is None and not self.by_hand and self.state is not State.WAKING:
            self.queue.admit(awake=self.state is State.AWAKE, held=self.held)
        if self.queue.active:
            self.last_used = self.now()

    def _go_to_sleep(self, drain: Drain) -> None:
        self.drain = drain
        self.target_bytes = drain.bytes_asleep
        if self.state is State.AWAKE:
            self.enter(State.DRAINING, drain.cause)
        self._sleep_when_drained()

    def _sleep_when_drained(self) -> None:
        if self.drain is None or self.drain.level is None or self.operation is not None:
            return
        if not self.queue.active or self.suspended or self.drain.keep_kv is not None:
            self._operations.begin(self._operations.sleep)

    def _heed_hand(self) -> None:
        """Admit nobody any more, and do what is wanted when nothing is in flight, however often that is
        suspended and goes on till then."""
        if not self.by_hand or self.operation is not None:
            return
        if self.state is State.AWAKE and (self.queue.active or self.adoption):
            self.enter(State.DRAINING, "manual")
        if self.queue.active:
            return
        if self.adoption:
            self.target_bytes = self.footprint().device
            self._operations.begin(self._operations.adopt_by_hand)
        elif self.hand:
            self._sleep_by_hand(self.hand)

    def _sleep_by_hand(self, hand: Drain) -> None:
        """Nothing is in flight."""
        assert hand.level is not None
        self.hand = None
        if not self.held and (self.level is None or self.level >= hand.level):
            hand.done.set_result(self.level or 2)
            self._admit()
        else:
            self._go_to_sleep(hand)
