"""The process that serves, from outside: what it prints, how it stops, and with which exit code."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.gateway.gateway_process import Process, running, started
from tests.openai_schema.clients import http_client

LONG = "a question long enough for its echo to take a while" * 4


def test_the_line_to_try_gets_an_answer() -> None:
    with running("fake/quick", "--served-model-name", "it's quick") as gateway:
        words = shlex.split(gateway.invitation)
        assert words[:2] == ["curl", f"{gateway.url}/v1/chat/completions"]
        body = json.loads(words[words.index("-d") + 1])
        assert body["model"] == "it's quick"
        assert gateway.post(body).json()["choices"][0]["message"]["content"]


def test_a_key_is_part_of_the_line_to_try_and_never_shown() -> None:
    with running("fake/quick", "--api-key", "s3cret") as gateway:
        assert '-H "Authorization: Bearer $DORMOUSE_API_KEY"' in gateway.invitation
        assert gateway.get("/v1/models").status_code == 401
        gateway.signal(signal.SIGTERM)
        assert gateway.exit_code() == 0
        assert "s3cret" not in gateway.invitation + gateway.log()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_gateway_stops_at_once(signum: signal.Signals) -> None:
    with running("fake/quick") as gateway, http_client() as client:
        assert client.get(f"{gateway.url}/health").status_code == 200  # leaves a connection open
        began = time.monotonic()
        gateway.signal(signum)
        assert gateway.exit_code() == 0
        assert time.monotonic() - began < 5


def test_a_drain_refuses_newcomers_and_finishes_what_is_in_flight() -> None:
    with running("fake/slow") as gateway, gateway.streaming("fake/slow", "on its way") as lines:
        gateway.signal(signal.SIGTERM)
        wait_until_not_ready(gateway)
        refused = gateway.ask("fake/slow")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
        assert gateway.get("/health").status_code == 200
        rest = list(lines)
        assert "data: [DONE]" in rest and not any("error" in line for line in rest)
        assert gateway.exit_code() == 0


def test_a_drain_lasts_no_longer_than_its_timeout(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[server]\ndrain_timeout = "200ms"\n')
    with (
        running("fake/slow", "--config", str(file)) as gateway,
        gateway.streaming("fake/slow", LONG) as lines,
    ):
        gateway.signal(signal.SIGTERM)
        rest = list(lines)
        assert any('"code":"shutting_down"' in line for line in rest)
        assert rest[-2:] == ["data: [DONE]", ""]
        assert gateway.exit_code() == 0
        assert "drain_timeout" in gateway.log()


def test_a_second_signal_exits_at_once() -> None:
    with running("fake/slow") as gateway, gateway.streaming("fake/slow", LONG):
        gateway.signal(signal.SIGTERM)
        wait_until_not_ready(gateway)
        gateway.signal(signal.SIGTERM)
        assert gateway.exit_code() == 128 + signal.SIGTERM


def test_a_hangup_without_a_file_changes_nothing() -> None:
    with running("fake/quick") as gateway:
        gateway.signal(signal.SIGHUP)
        assert gateway.get("/ready").status_code == 200
        gateway.signal(signal.SIGTERM)
        assert gateway.exit_code() == 0
        assert "SIGHUP: there is no config file to read again" in gateway.log()


def test_a_failed_device_ends_the_stream_and_the_process() -> None:
    with running("fake/broken") as gateway:
        with gateway.streaming("fake/broken", "hello") as lines:
            rest = list(lines)
        assert any('"error"' in line for line in rest)
        assert rest[-2:] == ["data: [DONE]", ""]
        assert gateway.exit_code() == 70
        assert "an illegal memory access" in gateway.log()


def test_a_preload_that_fails_leaves_the_gateway_serving_the_others() -> None:
    with running("fake/quick", "fake/unwakeable") as gateway:
        assert gateway.get("/ready").status_code == 200
        assert gateway.ask("fake/quick").status_code == 200


def test_a_port_that_is_taken_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with started("fake/quick", "--port", port) as gateway:
            output, log = gateway.communicate(timeout=20)
    assert (gateway.returncode, output) == (1, "")
    assert log.count("\n") == 1
    # The one who holds it is these tests' own process, under whatever name it runs.
    assert re.search(rf"port {port} is in use by \S+ \(pid {os.getpid()}\): stop it, or use --port$", log)


def test_listening_to_everybody_without_keys_is_warned_about() -> None:
    with running("fake/quick", "--host", "0.0.0.0") as gateway:
        assert gateway.invitation.startswith("curl http://127.0.0.1:")
        gateway.signal(signal.SIGTERM)
        assert gateway.exit_code() == 0
        assert "ANYONE WHO CAN REACH 0.0.0.0" in gateway.log()


def wait_until_not_ready(gateway: Process) -> None:
    while gateway.get("/ready").status_code == 200:
        time.sleep(0.01)
