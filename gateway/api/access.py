"""Which web pages may speak to the gateway: Host, Origin and CORS.

A browser carries requests from any page to a gateway on its machine. So an ``Origin`` that is neither ours
nor configured is refused, and a gateway on loopback that asks for no key answers to loopback names only,
which a rebound DNS name is not. Origins that are configured get their CORS headers, on errors too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from litestar.datastructures import Headers
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from gateway.api.asgi import JSON, encode_headers, send_whole
from gateway.api.errors import error_json
from gateway.config import ServerConfig
from gateway.errors import Forbidden

logger = logging.getLogger(__name__)

_EXPOSED: Final = "x-request-id, server-timing, retry-after"
_PREFLIGHT_SECONDS: Final = 600


class Access:
    """``server`` tells the configuration as it is now."""

    def __init__(self, app: ASGIApp, server: Callable[[], ServerConfig]) -> None:
        self._app = app
        self._server = server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers.from_scope(scope)
        try:
            self._check_host(headers)
            shared = self._check_origin(headers)
        except Forbidden as error:
            await send_whole(send, error.status, error_json(error), JSON)
            return
        if not shared:
            await self._app(scope, receive, send)
            return
        cors = {"access-control-allow-origin": headers["origin"], "vary": "origin"}
        if scope.get("method") == "OPTIONS" and "access-control-request-method" in headers:
            await send_whole(send, 200, b"", {**cors, **_preflight(headers)})
            return
        await self._app(scope, receive, _adding(send, {**cors, "access-control-expose-headers": _EXPOSED}))

    def _check_host(self, headers: Headers) -> None:
        server, host = self._server(), headers.get("host", "")
        if is_loopback(server.host) and not server.api_keys and not is_loopback(_hostname(host)):
            raise Forbidden(f"without api_keys this server answers to loopback names only, not to {host!r}")

    def _check_origin(self, headers: Headers) -> bool:
        """Whether the page is a configured foreign one. Raises Forbidden for any other foreign one."""
        origin = headers.get("origin")
        if origin is None or (origin != "null" and origin.partition("://")[2] == headers.get("host")):
            return False
        allowed = self._server().cors_origins
        if origin in allowed or "*" in allowed:
            return True
        raise Forbidden(f"requests from {origin!r} are not allowed; cors_origins would allow them")


def warn_if_open(server: ServerConfig) -> None:
    if not server.api_keys and not is_loopback(server.host):
        logger.warning("ANYONE WHO CAN REACH %s CAN USE THIS GATEWAY: no api_keys are set", server.host)


def is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _preflight(headers: Headers) -> dict[str, str]:
    return {
        "access-control-allow-methods": "GET, POST",
        "access-control-allow-headers": headers.get("access-control-request-headers", "*"),
        "access-control-max-age": str(_PREFLIGHT_SECONDS),
    }


def _adding(send: Send, headers: dict[str, str]) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *encode_headers(headers)]
        await send(message)

    return send_with_headers
