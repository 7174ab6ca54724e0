"""The connection beneath a request, which ASGI has no word for.

uvicorn's ``send`` is a method of the object that knows the transport; behind another server there is none.
"""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios

from litestar.types import ASGIApp, Receive, Scope, Send

_KEY = "dormouse.transport"


class Transports:
    """Middleware that lets ``transport_of`` find it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"][_KEY] = getattr(getattr(send, "__self__", None), "transport", None)
        await self._app(scope, receive, send)


def transport_of(scope: Scope) -> asyncio.Transport | None:
    found: asyncio.Transport | None = scope["state"].get(_KEY)
    return found


def unsent_bytes(transport: asyncio.Transport) -> int:
    """What the peer has not taken yet: of this process and of the system."""
    unsent = transport.get_write_buffer_size()
    socket = transport.get_extra_info("socket")
    if socket is not None and not transport.is_closing():
        queued = fcntl.ioctl(socket.fileno(), termios.TIOCOUTQ, b"\0" * 4)
        unsent += struct.unpack("i", queued)[0]
    return unsent
