"""The other end of a request, while it is being answered.

A client may leave or stop reading at any moment. ``Client.serve`` runs the work of an answer and cancels it
when the client has left, from the end of the request's body on, or when it has taken no byte of a ``send``
for ``stall_timeout``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Final

from litestar.types import Message, Receive, Scope, Send

from gateway.api.asgi import send_body, send_start, send_whole
from gateway.api.record import record_of
from gateway.api.transport import transport_of, unsent_bytes

_LOOK: Final = 1.0
"""Seconds after which a ``send`` is looked at: who has not taken it by then is behind."""


class Client:
    def __init__(self, scope: Scope, receive: Receive, send: Send, *, stall_timeout: float) -> None:
        self._receive = receive
        self._asgi_send = send
        self._stall_timeout = stall_timeout
        self._transport = transport_of(scope)
        self.record = record_of(scope)
        self._answered = False
        self._sends = 0
        self._sending = False
        self._behind = False
        self.on_behind: Callable[[bool], None] = lambda behind: None
        """Told when the client falls behind with reading, and when it has caught up."""

    async def serve(self, work: Coroutine[None, None, None]) -> None:
        """Run ``work`` to its end, or until the client leaves or stalls. Raises what ``work`` raises."""
        working = asyncio.create_task(work)
        leaving = asyncio.create_task(self._left())
        stalling = asyncio.create_task(self._stalled())
        try:
            await asyncio.wait({working, leaving, stalling}, return_when=asyncio.FIRST_COMPLETED)
            if self._answered and not stalling.done():
                # The server reports the end of the answer as the client's leaving.
                await asyncio.wait({working, stalling}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (working, leaving, stalling):
                task.cancel()
            await asyncio.wait({working, leaving, stalling})
        self.record.left = working.cancelled()
        if not working.cancelled() and (error := working.exception()):
            raise error

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        await send_start(self._send, status, headers)

    def write(self, body: bytes, *, more_body: bool = True) -> Awaitable[None]:
        self._answered = not more_body
        return send_body(self._send, body, more_body=more_body)

    async def respond(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        """The whole answer at once."""
        self._answered = True
        await send_whole(self._send, status, body, headers)

    async def _send(self, message: Message) -> None:
        self._sends += 1
        self._sending = True
        await self._asgi_send(message)
        self._sending = False
        if self._behind:
            self._behind = False
            self.on_behind(False)

    async def _left(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _stalled(self) -> None:
        """Return when nothing of a ``send`` has been taken for too long, the connection cut. One timer a
        client: one a send would show in the price of a token."""
        pause = min(_LOOK, self._stall_timeout)
        seen, unsent, moved_at = 0, 0, now()
        while now() - moved_at < self._stall_timeout:
            await asyncio.sleep(pause)
            left = unsent_bytes(self._transport) if self._transport else 0
            same = self._sending and self._sends == seen
            if same:
                self._fall_behind()
            if not same or left < unsent:
                moved_at = now()
            seen, unsent = self._sends, left
        if self._transport is not None:
            self._transport.abort()

    def _fall_behind(self) -> None:
        if not self._behind:
            self._behind = True
            self.on_behind(True)


def now() -> float:
    return asyncio.get_running_loop().time()
