"""Who may call what: a guard over every route, which says by its ``opt`` whether it is open or for admins.

Keys are compared in constant time and never logged. A route that says nothing needs an api key.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Any, Final

from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler

from gateway.config import ServerConfig
from gateway.errors import InvalidApiKey

OPEN: Final = {"access": "open"}
ADMIN: Final = {"access": "admin"}


class KeyGuard:
    """``server`` tells the configuration as it is now."""

    def __init__(self, server: Callable[[], ServerConfig]) -> None:
        self._server = server

    def __call__(self, connection: ASGIConnection[Any, Any, Any, Any], route: BaseRouteHandler) -> None:
        access = access_of(route)
        if access == "open" or connection.scope.get("method") == "OPTIONS":
            return
        server = self._server()
        keys = _admin_keys(server) if access == "admin" else _user_keys(server)
        if keys and not any(_same(sent, key) for sent in _sent_keys(connection) for key in keys):
            raise InvalidApiKey("this route needs a valid key: Authorization: Bearer, or x-api-key")


def access_of(route: BaseRouteHandler) -> str:
    """``open``, ``user`` or ``admin``."""
    access: str = route.opt.get("access", "user")
    return access


def _user_keys(server: ServerConfig) -> tuple[str, ...]:
    return (*server.api_keys, *server.admin_keys) if server.api_keys else ()


def _admin_keys(server: ServerConfig) -> tuple[str, ...]:
    return server.admin_keys or server.api_keys


def _sent_keys(connection: ASGIConnection[Any, Any, Any, Any]) -> list[str]:
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    bearer = token.strip() if scheme.lower() == "bearer" else ""
    return [key for key in (bearer, connection.headers.get("x-api-key", "")) if key]


def _same(sent: str, key: str) -> bool:
    # Headers arrive decoded as latin-1, whatever their bytes mean.
    return hmac.compare_digest(sent.encode("latin-1"), key.encode())
