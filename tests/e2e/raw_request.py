"""A request by hand, whose client may leave at any moment, or not read."""

from __future__ import annotations

import json
import socket
from typing import Any

from tests.e2e.server import Server


def send_request(
    server: Server, route: str, body: dict[str, Any], receive_buffer: int | None = None
) -> socket.socket:
    """The answer is left unread."""
    content = json.dumps(body).encode()
    head = f"POST {route} HTTP/1.1\r\nhost: 127.0.0.1:{server.port}\r\ncontent-length: {len(content)}\r\n\r\n"
    client = socket.socket()
    if receive_buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.connect(("127.0.0.1", server.port))
    client.sendall(head.encode() + content)
    return client
