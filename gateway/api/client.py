"""The other end of a request, while it is being answered.

A client may leave or stop reading at any moment. ``Client.serve`` runs the work of an answer and cancels it
when the client has left, from the end of the request's body on; a ``send`` that moves nothing for
``stall_timeout`` cuts the connection and raises ``ClientGone``.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine, Mapping
from typing import Final

from litestar.types import ASGIApp, Message, Receive, Scope, Send

from gateway.api.asgi import send_body, send_start, send_whole

_ABORT: Final = "dormouse.abort"


class ClientGone(Exception):
    """Nobody is there to answer. Never seen outside ``Client.serve``."""


class Client:
    def __init__(self, scope: Scope, receive: Receive, send: Send, *, stall_timeout: float) -> None:
        self._receive = receive
        self._send = send
        self._stall_timeout = None if math.isinf(stall_timeout) else stall_timeout
        self._abort = scope["state"].get(_ABORT)
        self._answered = False

    async def serve(self, work: Coroutine[None, None, None]) -> None:
        """Run ``work`` to its end, or until the client leaves. Raises what ``work`` raises."""
        working = asyncio.create_task(work)
        leaving = asyncio.create_task(self._left())
        try:
            await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if self._answered:  # the server reports the end of the answer as the client's leaving
                await asyncio.wait({working})
        finally:
            working.cancel()
            leaving.cancel()
            await asyncio.wait({working, leaving})
        if not working.cancelled() and (error := working.exception()) and not isinstance(error, ClientGone):
            raise error

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        await send_start(self._bounded_send, status, headers)

    async def write(self, body: bytes, *, more_body: bool = True) -> None:
        self._answered = not more_body
        await send_body(self._bounded_send, body, more_body=more_body)

    async def respond(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        """The whole answer at once."""
        self._answered = True
        await send_whole(self._bounded_send, status, body, headers)

    async def _left(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _bounded_send(self, message: Message) -> None:
        try:
            async with asyncio.timeout(self._stall_timeout):
                await self._send(message)
        except TimeoutError:
            if self._abort is not None:
                self._abort()
            raise ClientGone from None


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
