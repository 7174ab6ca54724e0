"""HTTP as clients may speak it, beneath the routes."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.server import Server, running

OFFER = "connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, checkpoints: dict[str, Path]) -> Iterator[Server]:
    model = f'[models.m]\npath = "{checkpoints["large-a"]}"\nidle_timeout = "never"\n'
    with running(tmp_path_factory.mktemp("http"), model) as server:
        yield server


def completion(more: str = "", **fields: Any) -> bytes:
    body = json.dumps({"model": "m", "prompt": "x", "max_tokens": 2, **fields}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


def connect(server: Server) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def answers(client: socket.socket, count: int) -> bytes:
    received = b""
    while received.count(b"HTTP/1.1 ") < count or not received.endswith(b"}"):
        data = client.recv(65536)
        if not data:
            break
        received += data
    return received


@pytest.mark.parametrize("packets", [1, 2])
def test_an_offer_of_another_protocol_is_passed_over(server: Server, packets: int) -> None:
    """As Java's client makes it with every request."""
    request = completion(OFFER)
    cut = len(request) if packets == 1 else request.index(b"\r\n\r\n") + 4
    with connect(server) as client:
        for _ in range(2):
            client.sendall(request[:cut])
            time.sleep(0.05)  # another packet
            client.sendall(request[cut:])
            assert answers(client, 1).startswith(b"HTTP/1.1 200"), "and the connection goes on"


def test_a_body_may_speak_of_upgrades(server: Server) -> None:
    with connect(server) as client:
        client.sendall(completion(echo=True, prompt="\r\n\r\nx\nUpgrade: this"))
        assert b"Upgrade: this" in answers(client, 1)


@pytest.mark.parametrize(
    "request_line", [b"NONSENSE\r\n\r\n", b"GET / HTTP/1.1\r\ncontent-length: -1\r\n\r\n"]
)
def test_what_is_no_http_is_answered_with_an_error(server: Server, request_line: bytes) -> None:
    with connect(server) as client:
        client.sendall(request_line)
        head, _, body = answers(client, 1).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    assert json.loads(body)["error"]["type"] == "invalid_request_error"


def test_requests_sent_ahead_are_answered_in_their_order(server: Server) -> None:
    with connect(server) as client:
        client.sendall(completion() + b"GET /version HTTP/1.1\r\nhost: localhost\r\n\r\n")
        first, _, second = answers(client, 2).partition(b"}HTTP/1.1 ")
    assert b"text_completion" in first and b"version" in second


def test_who_leaves_with_another_request_sent_ahead_is_noticed(server: Server) -> None:
    with connect(server) as client:
        long = completion(max_tokens=3000, ignore_eos=True)
        client.sendall(long + b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        server.wait_until(lambda: server.status("m")["in_flight"] == 1, "it has not arrived")
    server.wait_until(lambda: server.status("m")["in_flight"] == 0, "a lease is held", 5)
    assert "Traceback" not in server.log.read_text()
