"""What is told of a request when it is over: a line in the log, its part in the metrics.

A ``Record`` goes with the request in its scope; who answers fills it in.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from time import monotonic
from typing import Any, Final

from litestar.types import ASGIApp, Message, Receive, Scope, Send

from gateway.api.request_id import request_id
from gateway.fleet import Lease
from gateway.metrics import Metrics
from gateway.printable import printable

logger = logging.getLogger("dormouse.requests")

_KEY: Final = "dormouse.record"
_LOOKING: Final = frozenset(
    {"/health", "/ready", "/metrics", "/api/status", "/api/events", "/is_sleeping", "/version"}
    | {"/", "/dashboard/{name}"}
)
"""Asked every few seconds by machines, or many at once by a browser: told of in the metrics alone."""


class Record:
    """Of one request. Times are ``time.monotonic``'s."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._began = monotonic()
        self._stepped_at: float | None = None
        self.model = ""
        """The configured name, once it is known to be one."""
        self.status = 0
        self.failed = False
        """In the middle of its answer."""
        self.left = False
        """The client, before the end of it."""
        self.fields: dict[str, Any] = {}
        """For the log, when they are known."""

    def placed(self, lease: Lease, prompt_tokens: int) -> None:
        """It has its place."""
        self._metrics.placed(self.model, lease.queue_seconds, prompt_tokens)
        self._steps = self._metrics.steps.of(self.model)
        self.fields |= {
            "prompt_tokens": prompt_tokens,
            "queue_seconds": lease.queue_seconds,
            "wake_seconds": lease.wake_seconds,
        }

    def stepped(self, tokens: int = 0) -> None:
        """The next tokens have come."""
        now = monotonic()
        if self._stepped_at is None:
            self.fields["first_token_seconds"] = now - self._began
            self._metrics.began(self.model, now - self._began)
        else:
            self._steps.observe_gap(now - self._stepped_at)
        self._steps.count(tokens)
        self._stepped_at = now

    def generated(self, tokens: int, cached_tokens: int) -> None:
        """No more will come; so many there are."""
        self._metrics.cached(self.model, cached_tokens)
        self.fields |= {"tokens": tokens, "cached_tokens": cached_tokens}

    def over(self, method: str, route: str, request_id: str) -> None:
        seconds = monotonic() - self._began
        status = "left" if self.left else "failed" if self.failed else self.status
        self._metrics.answered(self.model, route, str(status), seconds)
        if route not in _LOOKING:
            model = {"model": self.model} if self.model else {}
            fields = {**model, "status": status, "seconds": seconds, **self.fields, "id": request_id}
            logger.info("%s %s", method, route, extra={"fields": fields})


def record_of(scope: Scope) -> Record:
    record: Record = scope["state"][_KEY]
    return record


class Records:
    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        record = Record(self._metrics)
        scope["state"][_KEY] = record

        def send_and_note(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                record.status = message["status"]
            return send(message)

        try:
            await self._app(scope, receive, send_and_note)
        finally:
            route = scope.get("path_template")
            if not route:
                route, record.fields["path"] = "other", printable(scope["path"])
            record.over(str(scope.get("method", "")), route, request_id(scope))
