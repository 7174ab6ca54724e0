"""``GET /api/events``: the models' transitions, those that are remembered and then as they happen.

Each is one server-sent event with the transition as JSON and its number as id, so that a browser that lost
the connection asks for what it has missed only (``Last-Event-ID``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

import msgspec
from litestar import Request, get
from litestar.di import NamedDependency
from litestar.params import FromQuery
from litestar.types import ASGIApp, Receive, Scope, Send

from gateway.api import sse
from gateway.api.client import Client
from gateway.config import ServerConfig
from gateway.fleet import Events, Fleet

HEARTBEAT: Final = 15.0


@get("/api/events", include_in_schema=False)  # OpenAPI knows no answers without end
async def get_events(
    request: Request[Any, Any, Any],
    fleet: NamedDependency[Fleet],
    server: NamedDependency[ServerConfig],
    follow: FromQuery[bool] = True,
) -> ASGIApp:
    """The models' transitions as they happen, after those that are remembered; not to follow, these only."""
    seen = request.headers.get("last-event-id", "")
    after = int(seen) if seen.isdecimal() else 0

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        client = Client(scope, receive, send, stall_timeout=server.stall_timeout)
        await client.serve(_tell(client, fleet.events, after, follow=follow))

    return answer


async def _tell(client: Client, events: Events, after: int, *, follow: bool) -> None:
    changed = asyncio.Event()
    stop = events.subscribe(lambda _: changed.set())
    try:
        await client.start(200, sse.HEADERS)
        while True:
            changed.clear()
            news = b"".join(_encode(events, after))
            after = events.count
            await client.write(news or sse.comment("still here"), more_body=follow)
            if not follow:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT):
                    await changed.wait()
    finally:
        stop()


def _encode(events: Events, after: int) -> Iterator[bytes]:
    for number, transition in events.since(after):
        yield b"id: %d\n" % number + sse.data(msgspec.json.encode(transition))
