"""Small helpers for speaking ASGI by hand."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Final

from litestar.types import Send

JSON: Final = {"content-type": "application/json"}


def encode_headers(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]


async def send_start(send: Send, status: int, headers: Mapping[str, str]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": encode_headers(headers)})


def send_body(send: Send, body: bytes, *, more_body: bool) -> Awaitable[None]:
    return send({"type": "http.response.body", "body": body, "more_body": more_body})


async def send_whole(send: Send, status: int, body: bytes, headers: Mapping[str, str]) -> None:
    await send_start(send, status, {**headers, "content-length": str(len(body))})
    await send_body(send, body, more_body=False)
