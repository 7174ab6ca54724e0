"""``x-request-id`` on every answer: the client's own, or a new one."""

from __future__ import annotations

import re
import uuid
from collections.abc import Awaitable
from typing import Final

from litestar.datastructures import Headers
from litestar.types import ASGIApp, Message, Receive, Scope, Send

_ACCEPTABLE: Final = re.compile(r"[\x21-\x7e]{1,128}")
_KEY: Final = "dormouse.request_id"


def request_id(scope: Scope) -> str:
    """Of a request that has passed ``RequestIds``."""
    found: str = scope["state"][_KEY]
    return found


class RequestIds:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sent = Headers.from_scope(scope).get("x-request-id", "")
        chosen = sent if _ACCEPTABLE.fullmatch(sent) else uuid.uuid4().hex
        scope["state"][_KEY] = chosen

        def send_with_id(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", chosen.encode())]
            return send(message)

        await self._app(scope, receive, send_with_id)
