"""Who waits for a model and who has been admitted, in the order of their coming.

A ticket is in exactly one of ``waiting`` and ``active`` until it is refused, leaves, or is granted without a
request behind it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from engine import Tag
from gateway.errors import ApiError, WaitTimeout
from gateway.fleet.lease import Ticket

NO_TAGS: frozenset[Tag] = frozenset()


class Queue:
    def __init__(self, name: str, places: int) -> None:
        self.name = name
        self.waiting: deque[Ticket] = deque()
        self.active: set[Ticket] = set()
        self._places = places
        self._behind: set[Ticket] = set()
        """Of the active ones, those who do not read what there is, and so take no place."""

    @property
    def in_flight(self) -> int:
        """Requests accepted and not over."""
        return len(self.active) + sum(ticket.is_request for ticket in self.waiting)

    @property
    def queued(self) -> int:
        """Of these, the ones without a first token yet."""
        return self.in_flight - sum(ticket.begun for ticket in self.active)

    @property
    def since(self) -> float | None:
        return min((ticket.since for ticket in self.waiting), default=None)

    @property
    def deadline(self) -> float | None:
        """When the first of those who wait has waited too long."""
        return min((ticket.deadline for ticket in self.waiting), default=None)

    @property
    def wanted_tags(self) -> frozenset[Tag]:
        return NO_TAGS.union(*(ticket.tags for ticket in self.waiting))

    def admit(self, *, awake: bool, held: frozenset[Tag]) -> None:
        """Grant all tickets that the model's state allows; requests need a place too."""
        waiting = tuple(self.waiting)
        self.waiting.clear()
        for ticket in waiting:
            if ticket.is_request and awake and len(self.active) - len(self._behind) < self._places:
                self.active.add(ticket)
                ticket.grant()
            elif not ticket.is_request and ticket.tags <= held:
                ticket.grant()
            else:
                self.waiting.append(ticket)

    def leave(self, ticket: Ticket) -> bool:
        """It has gone, from wherever it was. True if it was active."""
        self._behind.discard(ticket)
        if ticket in self.active:
            self.active.remove(ticket)
            return True
        if ticket in self.waiting:
            self.waiting.remove(ticket)
        return False

    def set_behind(self, ticket: Ticket, behind: bool) -> None:
        """Whether its reader is behind."""
        self._behind.discard(ticket)
        if behind and ticket in self.active:
            self._behind.add(ticket)

    def expire(self, now: float) -> None:
        """Refuse those who have waited too long."""
        for ticket in [ticket for ticket in self.waiting if ticket.deadline <= now]:
            self.waiting.remove(ticket)
            ticket.refuse(WaitTimeout(f"{self.name} did not get its turn in time", retry_after=5.0))

    def turn_away(self, error: Callable[[], ApiError]) -> None:
        """Refuse all who wait."""
        while self.waiting:
            self.waiting.popleft().refuse(error())

    def abort(self, error: Callable[[], ApiError]) -> None:
        """Cut all that is active."""
        for ticket in self.active:
            ticket.abort(error())
