"""Server-sent events to one client: when the answer begins, what keeps it alive, how it ends.

While nothing has come yet the status line is held back for ``HOLD_BACK`` seconds, so that a wake that fails
can still be a proper 503; after that the answer begins, and a comment line every ``HEARTBEAT`` seconds tells
the client and the proxies between that it is being worked on. Events are written as bytes that are encoded
already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from gateway.api.client import Client, ClientGone

HOLD_BACK: Final = 2.0
HEARTBEAT: Final = 5.0

_HEADERS: Final = {
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

    def __init__(self, client: Client) -> None:
        self._client = client
        self._sending = asyncio.Lock()
        self._flowing = asyncio.Event()
        self.started = False

    async def __aenter__(self) -> EventStream:
        self._heartbeat = asyncio.create_task(self._beat())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._heartbeat.cancel()
        await asyncio.gather(self._heartbeat, return_exceptions=True)

    async def begin(self, headers: Mapping[str, str]) -> bool:
        """From here on events flow. False when the heartbeat had to begin the answer, without ``headers``."""
        self._flowing.set()
        async with self._sending:
            if self.started:
                return False
            await self._start(headers)
            return True

    async def write(self, events: bytes) -> None:
        await self._client.write(events)

    async def end(self, events: bytes = b"") -> None:
        await self._client.write(events + _DONE, more_body=False)

    async def fail(self, error: bytes) -> None:
        """End an answer that has begun with an error event."""
        self._flowing.set()
        async with self._sending:
            await self.end(data(error))

    async def _start(self, headers: Mapping[str, str]) -> None:
        self.started = True
        await self._client.start(200, {**_HEADERS, **headers})

    async def _beat(self) -> None:
        pause = HOLD_BACK
        try:
            while not await self._flows_within(pause):
                async with self._sending:
                    if self._flowing.is_set():
                        return
                    if not self.started:
                        await self._start({})
                    await self._client.write(comment("waiting"))
                pause = HEARTBEAT
        except ClientGone:
            return  # the connection is cut, which ends the work of this answer

    async def _flows_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return await self._flowing.wait()
        except TimeoutError:
            return False
