"""Server-sent events to one client: when the answer begins, what keeps it alive, how it ends.

While nothing has come yet the status line is held back for ``HOLD_BACK`` seconds, so that a wake that fails
can still be a proper 503; after that the answer begins. Whenever nothing has come for ``HEARTBEAT`` seconds
(``PROGRESS`` where the client wants to know more), at the beginning or while its model makes way for another,
something tells the client and the proxies between that it is being worked on. Events are written as bytes
that are encoded already.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import Final

from gateway.api.client import Client, now

HOLD_BACK: Final = 2.0
HEARTBEAT: Final = 5.0
PROGRESS: Final = 0.5

HEADERS: Final = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}
_DONE: Final = b"data: [DONE]\n\n"


def data(payload: bytes) -> bytes:
    return b"data: %b\n\n" % payload


def comment(text: str) -> bytes:
    return f": {text}\n\n".encode()


class EventStream:
    """Use as an async context around the whole answer, the waiting included."""

    def __init__(self, client: Client, meanwhile: Callable[[], bytes], *, every: float) -> None:
        """``meanwhile``: what to send when nothing has come for ``every`` seconds."""
        self._client = client
        self._meanwhile = meanwhile
        self._every = every
        self._sending = asyncio.Lock()
        self._sent_at = -math.inf
        self._ended = False
        self.started = False

    async def __aenter__(self) -> EventStream:
        self._heartbeat = asyncio.create_task(self._beat())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._heartbeat.cancel()
        await asyncio.gather(self._heartbeat, return_exceptions=True)

    async def begin(self, headers: Mapping[str, str]) -> bool:
        """From here on events flow. False when the heartbeat had to begin the answer, without ``headers``."""
        async with self._sending:
            if self.started:
                return False
            await self._start(headers)
            return True

    async def write(self, events: bytes) -> None:
        async with self._sending:
            await self._client.write(events)
            self._sent_at = now()

    async def end(self, events: bytes = b"") -> None:
        async with self._sending:
            self._ended = True
            await self._client.write(events + _DONE, more_body=False)

    async def fail(self, error: bytes) -> None:
        """End an answer that has begun with an error event."""
        self._client.record.failed = True
        await self.end(data(error))

    async def _start(self, headers: Mapping[str, str]) -> None:
        self.started = True
        await self._client.start(200, {**HEADERS, **headers})

    async def _beat(self) -> None:
        pause = HOLD_BACK
        while not self._ended:
            await asyncio.sleep(pause)
            async with self._sending:
                if not self.started:
                    await self._start({})
                quiet = now() - self._sent_at
                if quiet >= self._every and not self._ended:
                    await self._client.write(self._meanwhile())
                    self._sent_at = now()
                    quiet = 0.0
                pause = self._every - quiet
