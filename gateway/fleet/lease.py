"""A request's place at a model: the ticket it waits with and the lease it holds.

A ticket is granted or refused once. A lease is open from the grant until its end; whatever it generates is
closed before that end, so a model without open leases has nothing running.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from engine import ALL_TAGS, Delta, Engine, GenerateRequest, Tag
from gateway.errors import ApiError
from gateway.fleet.state import Cause

T = TypeVar("T")


@dataclass(slots=True, eq=False, kw_only=True)
class Ticket:
    """One who waits for a model: a request, or somebody who wants it awake."""

    cause: Cause
    since: float
    deadline: float
    tags: frozenset[Tag] = ALL_TAGS
    waking_before: float = 0.0
    """The model's seconds of waking when the wait began."""
    granted: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    lease: Lease | None = None
    begun: bool = False
    """Its first tokens have come."""
    cut_by: ApiError | None = None
    """Why what it generates, or would, has been cut."""

    @property
    def is_request(self) -> bool:
        return self.cause == "request"

    def grant(self) -> None:
        if not self.granted.done():
            self.granted.set_result(None)

    def abort(self, error: ApiError) -> None:
        """Cut what it generates, or would."""
        self.cut_by = error
        if self.lease:
            self.lease.cut()

    def refuse(self, error: ApiError) -> None:
        if not self.granted.done():
            self.granted.set_exception(error)
            self.granted.exception()  # marks it as seen, should the waiting one have left just now


class Lease:
    """The right to generate on an awake model. ``queue_seconds`` is how long it waited for its place,
    ``wake_seconds`` for the wake. ``set_behind`` is to be told whether the reader of what it generates is far
    behind: then its place is another's meanwhile."""

    def __init__(
        self,
        engine: Engine,
        ticket: Ticket,
        *,
        queue_seconds: float,
        wake_seconds: float,
        set_behind: Callable[[bool], None],
    ) -> None:
        self.engine = engine
        self.queue_seconds = queue_seconds
        self.wake_seconds = wake_seconds
        self.set_behind = set_behind
        self._ticket = ticket
        self._streams: set[AsyncGenerator[Any]] = set()
        self._waiting: dict[AsyncGenerator[Any], asyncio.Task[Any] | None] = {}
        """For what comes next of a stream: the task that does; None once it has been cut."""
        self._all_closed = asyncio.Event()
        ticket.lease = self

    def generate(self, request: GenerateRequest) -> AsyncGenerator[list[Delta]]:
        """As the engine's ``generate``; ends with the ApiError that it is cut by."""
        return self._run(self.engine.generate(request))

    async def embed(self, inputs: Sequence[Sequence[int]], dimensions: int | None) -> list[array[float]]:
        """As the engine's ``embed``; ends with the ApiError that it is cut by."""

        async def once() -> AsyncGenerator[list[array[float]]]:
            yield await self.engine.embed(inputs, dimensions)

        async with aclosing(self._run(once())) as stream:
            return await anext(stream)

    async def _run(self, work: AsyncGenerator[T]) -> AsyncGenerator[T]:
        async with aclosing(work) as stream:
            self._streams.add(stream)
            try:
                while (result := await self._next(stream)) is not None:
                    self._ticket.begun = True
                    yield result
            finally:
                self._forget(stream)

    def cut(self) -> None:
        """End every wait for tokens now."""
        for stream, task in self._waiting.items():
            if task is not None:
                self._waiting[stream] = None
                task.cancel()

    @property
    def idle(self) -> bool:
        return not self._streams

    async def close(self) -> None:
        """Return when nothing of this lease runs on the engine any more."""
        self._ticket.abort(self._ticket.cut_by or ApiError("the request is over"))
        for stream in self._streams - self._waiting.keys():
            await stream.aclose()
            self._forget(stream)
        if self._streams:
            await self._all_closed.wait()

    async def _next(self, stream: AsyncGenerator[T]) -> T | None:
        """What comes next; None at the end. Raises the ApiError that it is cut by."""
        if self._ticket.cut_by:
            raise self._ticket.cut_by
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        cancelled = task.cancelling()
        self._waiting[stream] = task
        try:
            return await anext(stream, None)
        except asyncio.CancelledError:
            # As asyncio.timeout does it, whose price at every token shows: another's cancelling goes on.
            if self._waiting[stream] is None and task.uncancel() <= cancelled and self._ticket.cut_by:
                raise self._ticket.cut_by from None
            raise
        finally:
            del self._waiting[stream]

    def _forget(self, stream: AsyncGenerator[Any]) -> None:
        self._streams.discard(stream)
        if not self._streams:
            self._all_closed.set()
