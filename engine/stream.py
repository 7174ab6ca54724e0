"""The way of tokens from the device's worker to the coroutine that asked for them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from engine.types import Delta

_LEAST_AHEAD: Final = 16
"""Steps that any reader may be behind: it has other things to do, too."""


class DeltaStream:
    """All choices of one request. Made on the loop; ``aborted`` may be set there at any time."""

    def __init__(self, read_ahead: int = 1024) -> None:
        """``read_ahead``: steps that may wait to be taken."""
        self.aborted = False
        """Nobody waits any more."""
        self._most = max(read_ahead, _LEAST_AHEAD)
        self._loop = asyncio.get_running_loop()
        self._steps: asyncio.Queue[list[Delta] | BaseException] = asyncio.Queue()

    async def next(self) -> list[Delta]:
        """What one step made, or the error that ended a choice and so the request."""
        step = await self._steps.get()
        if isinstance(step, BaseException):
            raise step
        return step

    @property
    def full(self) -> bool:
        """The reader is so far behind that nothing more should come until there is room."""
        return self._steps.qsize() >= self._most

    @property
    def has_room(self) -> bool:
        return self._steps.qsize() <= self._most // 2

    @property
    def caught_up(self) -> bool:
        """Whether the last ``next`` made room."""
        return self._steps.qsize() == self._most // 2

    def _put(self, items: Sequence[Delta | BaseException]) -> None:
        """On the loop."""
        error = next((item for item in items if isinstance(item, BaseException)), None)
        self._steps.put_nowait(error or [item for item in items if isinstance(item, Delta)])

    @staticmethod
    def deliver(results: Sequence[tuple[DeltaStream, Delta | BaseException]]) -> None:
        """Cross to the loop once for all of a step's results. Called on the worker."""
        by_stream: dict[DeltaStream, list[Delta | BaseException]] = {}
        for stream, item in results:
            by_stream.setdefault(stream, []).append(item)
        for loop in {stream._loop for stream in by_stream}:
            mine = [(stream, items) for stream, items in by_stream.items() if stream._loop is loop]
            with suppress(RuntimeError):  # the loop has been closed: nobody waits any more
                loop.call_soon_threadsafe(_put_all, mine)


def _put_all(steps: Sequence[tuple[DeltaStream, Sequence[Delta | BaseException]]]) -> None:
    for stream, items in steps:
        stream._put(items)
