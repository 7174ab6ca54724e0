"""The way of tokens from the device's worker to the coroutine that asked for them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from engine.types import Delta


class DeltaStream:
    """All choices of one request. Made on the loop; ``aborted`` may be set there at any time."""

    def __init__(self) -> None:
        self.aborted = False
        """Nobody waits any more."""
        self._loop = asyncio.get_running_loop()
        self._steps: asyncio.Queue[list[Delta] | BaseException] = asyncio.Queue()

    async def next(self) -> list[Delta]:
        """What one step made, or the error that ended a choice and so the request."""
        step = await self._steps.get()
        if isinstance(step, BaseException):
            raise step
        return step

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
