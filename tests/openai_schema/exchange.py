"""One request's answer, checked while it passes."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import msgspec

from tests.openai_schema.validate import Violation, check_chunk, check_error, check_response


class Exchange:
    """``begin`` with the status line, ``feed`` the body as it comes, ``end`` it if it comes to its end. Each
    raises ``Violation``."""

    def __init__(self, method: str, path: str, request: bytes) -> None:
        self._path = path
        self._request = request
        self._is_ours = path.startswith("/v1/") and method in ("GET", "POST")
        self._fails = False
        self._streams = False
        self._rest = b""
        """Of the body, what has not been checked yet."""

    def begin(self, status: int, content_type: str) -> None:
        self._fails = status >= 400
        self._streams = content_type.startswith("text/event-stream")

    def feed(self, data: bytes) -> None:
        self._rest += data
        if self._streams and self._is_ours:
            *events, self._rest = self._rest.split(b"\n\n")
            for event in events:
                self._check_event(event)

    def end(self) -> None:
        if self._fails:
            check_error(_decoded(self._rest))
        elif self._streams and self._is_ours:
            if self._rest:
                raise Violation(f"{self._path}: the last event is cut: {self._rest!r}")
        elif self._is_ours:
            check_response(self._path, _decoded(self._rest), self._asked)

    @cached_property
    def _asked(self) -> dict[str, Any]:
        # What the server ignores need not be UTF-8.
        text = self._request.decode("utf-8-sig", errors="replace")
        return msgspec.json.decode(text, type=dict) if text else {}

    def _check_event(self, event: bytes) -> None:
        if event.startswith(b":") or event == b"data: [DONE]":
            return
        if not event.startswith(b"data: "):
            raise Violation(f"{self._path}: no event: {event!r}")
        check_chunk(self._path, _decoded(event.removeprefix(b"data: ")), self._asked)


def _decoded(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise Violation(f"no JSON: {error}: {data[:1000]!r}") from None
