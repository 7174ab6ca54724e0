"""uvicorn's HTTP, where clients need more of it.

Offers of other protocols are passed over, all requests of a connection hear of its end, and what cannot be
read as HTTP is answered with an error object, too.
"""

from __future__ import annotations

import re
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from gateway.api.errors import error_json
from gateway.errors import InvalidRequest

_UPGRADE: Final = re.compile(rb"(^|\n)upgrade:", re.IGNORECASE)
_PIPELINED: Final = 8
"""Requests sent ahead on a connection that is still read from. Where it is not, its end goes unnoticed."""


class HttpProtocol(HttpToolsProtocol):
    _in_head = True
    """What comes next belongs to a request's head."""
    _cycles: tuple[RequestResponseCycle, ...] = ()
    """Requests that are not answered yet."""

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            data = _without_upgrade(data)
        super().data_received(data)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._in_head = False
        self._cycles = (*(cycle for cycle in self._cycles if not cycle.response_complete), self.cycle)
        if 0 < len(self.pipeline) <= _PIPELINED:
            self.flow.resume_reading()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_head = True

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for cycle in self._cycles:
            cycle.disconnected = cycle.disconnected or not cycle.response_complete
            cycle.message_event.set()

    def send_400_response(self, msg: str) -> None:
        body = error_json(InvalidRequest(msg))
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()


def _without_upgrade(data: bytes) -> bytes:
    """The parser takes what follows such a head for another protocol, the body too. A server may ignore the
    offer (RFC 9110, 7.8)."""
    head, end, rest = data.partition(b"\r\n\r\n")
    return _UPGRADE.sub(rb"\1x-offer:", head) + end + rest
