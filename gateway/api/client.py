"""The other end of a request, while it is being answered.

A client may leave or stop reading at any moment. ``Client.serve`` runs the work of an answer and cancels it
when the client has left, from the end of the request's body on, or when a ``send`` has moved nothing for
``stall_timeout``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Final

from litestar.types import ASGIApp, Message, Receive, Scope, Send

from gateway.api.asgi import send_body, send_start, send_whole
from gateway.api.record import record_of

_ABORT: Final = "dormouse.abort"


class Client:
    def __init__(self, scope: Scope, receive: Receive, send: Send, *, stall_timeout: float) -> None:
        self._receive = receive
        self._asgi_send = send
        self._stall_timeout = stall_timeout
        self._abort = scope["state"].get(_ABORT)
        self.record = record_of(scope)
        self._answered = False
        self._sending_since: float | None = None

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

    async def write(self, body: bytes, *, more_body: bool = True) -> None:
        self._answered = not more_body
        await send_body(self._send, body, more_body=more_body)

    async def respond(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        """The whole answer at once."""
        self._answered = True
        await send_whole(self._send, status, body, headers)

    async def _send(self, message: Message) -> None:
        self._sending_since = now()
        await self._asgi_send(message)
        self._sending_since = None

    async def _left(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _stalled(self) -> None:
        """Return when nothing of a ``send`` has moved for too long, the connection cut. One timer a client:
        one a send would show in the price of a token."""
        while True:
            since = self._sending_since
            left = self._stall_timeout if since is None else since + self._stall_timeout - now()
            if left <= 0:
                break
            await asyncio.sleep(left)
        if self._abort is not None:
            self._abort()


def now() -> float:
    return asyncio.get_running_loop().time()


class Abortable:
    """Middleware that lets ``Client`` cut a connection, which ASGI has no word for: uvicorn's ``send`` is a
    method of the object that knows the transport. Behind another server nothing is cut; the answer just
    ends."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        transport = getattr(getattr(send, "__self__", None), "transport", None)
        if abort := getattr(transport, "abort", None):
            scope["state"][_ABORT] = abort
        await self._app(scope, receive, send)
