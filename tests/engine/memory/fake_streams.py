"""Streams that do what is queued on them as late as they may, or at once: whichever a test asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass
class Work:
    """A copy: ``host`` and ``device`` are the bytes that it touches on either side."""

    host: range
    device: range
    run: Callable[[], object]


class FakeStreams:
    """``lazy``: work is done only when somebody waits for it, so that what is not waited for is seen."""

    def __init__(self, *, lazy: bool) -> None:
        self._lazy = lazy
        self._queues: dict[int, list[Work]] = {}
        self._events: dict[int, tuple[int, int] | None] = {}
        """Recorded on which stream, behind how much of all that was ever queued there."""
        self._done: dict[int, int] = {}
        self._ids = iter(range(0x51000, 0x52000))

    @property
    def open(self) -> list[int]:
        """Streams and events that were not destroyed."""
        return [*self._queues, *self._events]

    def pending(self) -> Iterator[Work]:
        for queue in self._queues.values():
            yield from queue

    def create_stream(self) -> int:
        stream = next(self._ids)
        self._queues[stream], self._done[stream] = [], 0
        return stream

    def create_event(self) -> int:
        event = next(self._ids)
        self._events[event] = None
        return event

    def has_stream(self, stream: int) -> bool:
        return stream in self._queues

    def has_event(self, event: int) -> bool:
        return event in self._events

    def queue(self, stream: int, work: Work) -> None:
        self._queues[stream].append(work)
        if not self._lazy:
            self.synchronize(stream)

    def synchronize(self, stream: int, until: int | None = None) -> None:
        queue = self._queues[stream]
        while queue and (until is None or self._done[stream] < until):
            queue.pop(0).run()
            self._done[stream] += 1

    def record(self, event: int, stream: int) -> None:
        self._events[event] = stream, self._done[stream] + len(self._queues[stream])

    def wait(self, event: int) -> None:
        recorded = self._events[event]
        if recorded and recorded[0] in self._queues:
            self.synchronize(*recorded)

    def destroy_stream(self, stream: int) -> None:
        del self._queues[stream]

    def destroy_event(self, event: int) -> None:
        del self._events[event]
