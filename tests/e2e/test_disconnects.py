"""Clients that leave, and clients that stop reading: nothing goes on for them."""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.raw_request import send_request
from tests.e2e.server import Server, running

PATIENCE = 1.5
"""A second, or a step of the slow model on a busy machine."""


def config(checkpoints: dict[str, Path], stall_timeout: str) -> str:
    """A slow model, one that answers one at a time, and a fast one, whose buffers fill soon."""
    return f"""
stall_timeout = "{stall_timeout}"
[sleep]
idle_timeout = "never"
[models.slow]
path = "{checkpoints["large-a"]}"
[models.single]
path = "{checkpoints["large-b"]}"
max_running = 1
[models.fast]
path = "{checkpoints["tiny-a"]}"
prefix_cache = false
[models.alone]
path = "{checkpoints["tiny-b"]}"
max_running = 1
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, checkpoints: dict[str, Path]) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("disconnects"), config(checkpoints, "1s")) as server:
        yield server


@pytest.fixture
def asleep(server: Server) -> Server:
    """Whose models are read when they are asked."""
    server.http.post("/sleep?level=2").raise_for_status()
    return server


def open_request(
    server: Server, model: str = "slow", *, stream: bool, receive_buffer: int | None = None, **body: object
) -> socket.socket:
    """For an answer that would take long."""
    given = {"model": model, "prompt": "x", "max_tokens": 3000, "ignore_eos": True, "stream": stream, **body}
    return send_request(server, "/v1/completions", given, receive_buffer)


def all_gone(server: Server, model: str = "slow", seconds: float = PATIENCE) -> None:
    server.wait_until(lambda: server.status(model)["in_flight"] == 0, "a lease is held", seconds)


def test_leaving_in_mid_stream(server: Server) -> None:
    clients = [open_request(server, stream=True) for _ in range(10)]
    for client in clients:
        assert client.recv(15) == b"HTTP/1.1 200 OK"
    for client in clients:
        client.close()
    all_gone(server)


def test_leaving_before_any_byte(asleep: Server) -> None:
    clients = [open_request(asleep, stream=False) for _ in range(10)]
    asleep.wait_until(lambda: asleep.status("slow")["in_flight"] == 10, "not all have arrived")
    asleep.wait_state("slow", "awake")
    for client in clients:
        client.close()
    all_gone(asleep)


def test_leaving_while_waiting_for_a_place(server: Server) -> None:
    runs = open_request(server, "single", stream=True)
    assert runs.recv(15) == b"HTTP/1.1 200 OK"
    waiting = [open_request(server, "single", stream=number % 2 == 0) for number in range(10)]
    server.wait_until(lambda: server.status("single")["queued"] == 10, "not all are waiting")
    for client in waiting:
        client.close()
    server.wait_until(lambda: server.status("single")["in_flight"] == 1, "a lease is held", PATIENCE)
    runs.close()
    all_gone(server, "single")


def test_leaving_while_it_wakes_does_not_stop_the_wake(asleep: Server) -> None:
    clients = [open_request(asleep, stream=True) for _ in range(10)]
    asleep.wait_until(lambda: asleep.status("slow")["in_flight"] > 0, "nobody has arrived")
    for client in clients:
        client.close()
    asleep.wait_state("slow", "awake")
    all_gone(asleep)


def test_one_who_stops_reading_is_cut(server: Server) -> None:
    stalled = open_request(server, "fast", stream=True, receive_buffer=4096)
    reader = open_request(server, "fast", stream=True, max_tokens=100)
    with stalled, reader:
        assert stalled.recv(15) == b"HTTP/1.1 200 OK"
        assert b"[DONE]" in read_to_the_end(reader), "the other goes on"
        all_gone(server, "fast", 60)
        assert b"[DONE]" not in read_to_the_end(stalled), "it was cut before its end"


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory, checkpoints: dict[str, Path]) -> Iterator[Server]:
    """Who cuts nobody."""
    with running(tmp_path_factory.mktemp("patient"), config(checkpoints, "1h")) as server:
        yield server


def stalled_stream(server: Server) -> socket.socket:
    """Of a client that has read no more than the beginning."""
    client = open_request(server, "alone", stream=True, receive_buffer=4096, logprobs=5, n=4)
    assert client.recv(15) == b"HTTP/1.1 200 OK"
    return client


def test_who_does_not_read_takes_nobodys_place(patient: Server) -> None:
    with stalled_stream(patient), open_request(patient, "alone", stream=True, max_tokens=5) as reader:
        assert b"[DONE]" in read_to_the_end(reader)
    all_gone(patient, "alone")


def test_an_abort_does_not_wait_for_who_does_not_read(patient: Server) -> None:
    with stalled_stream(patient) as stalled:
        patient.http.post("/sleep?level=1&model=alone&mode=abort", timeout=20).raise_for_status()
        assert patient.status("alone")["state"] == "asleep"
        told = read_to_the_end(stalled)
        assert b"put to sleep" in told and told.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    all_gone(patient, "alone")


def test_one_who_reads_slowly_is_not_cut(server: Server) -> None:
    """However long one piece of the answer takes: something of it is taken all the time."""
    with open_request(
        server, "fast", stream=True, receive_buffer=4096, max_tokens=60, logprobs=5, n=4
    ) as slow:
        received = b""
        while not received.endswith(b"0\r\n\r\n"):
            received += slow.recv(2048)
            time.sleep(0.05)
    assert b"[DONE]" in received


@pytest.mark.parametrize("asked", [{"prompt": ["x", "y"], "n": 4}])
def test_those_who_do_not_read_hold_up_nobody_and_cost_little_memory(
    tmp_path: Path, checkpoints: dict[str, Path], asked: dict[str, object]
) -> None:
    """The answers that they asked for would take ten times as much and more."""
    clients, waiting, token_bytes = 5, 1024, 4096
    with running(tmp_path, config(checkpoints, "60s"), OMP_NUM_THREADS="1") as server:
        assert server.process
        body = {"model": "fast", "max_tokens": 3900, "logprobs": 5, **asked}
        with open_request(server, stream=True, **{**body, "max_tokens": 300}) as reader:
            read_to_the_end(reader)
        before = resident_bytes(server.process.pid)
        stalled = [open_request(server, stream=True, receive_buffer=4096, **body) for _ in range(clients)]
        for client in stalled:
            assert client.recv(15) == b"HTTP/1.1 200 OK"
        with open_request(server, "fast", stream=True, max_tokens=300) as reader:
            assert b"[DONE]" in read_to_the_end(reader)
        server.wait_until(lambda: server.status("fast")["kv_bytes"] < 2**22, "they still generate", 60)
        kv_bytes = server.status("fast")["kv_bytes"]
        assert server.status("fast")["in_flight"] == clients
        grown = resident_bytes(server.process.pid) - before
        print(f"{grown >> 10} KiB more, {kv_bytes >> 10} of KV")
        assert grown < clients * waiting * token_bytes + kv_bytes
        for client in stalled:
            client.close()
        all_gone(server, "fast")


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def read_to_the_end(client: socket.socket) -> bytes:
    """All that comes until the end of the answer or of the connection."""
    client.settimeout(60)
    received = b""
    while not received.endswith(b"0\r\n\r\n"):
        try:
            data = client.recv(65536)
        except ConnectionResetError:
            break
        if not data:
            break
        received += data
    return received
