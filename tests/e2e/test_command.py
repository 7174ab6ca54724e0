"""The command, run as a user runs it, against the real server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import hub
from tests.e2e.server import DORMOUSE, Server, free_port, running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, checkpoints: dict[str, Path]) -> Iterator[Server]:
    config = f'[models.tiny]\npath = "{checkpoints["tiny-a"]}"\naliases = ["small"]\nmax_model_len = 256'
    with running(tmp_path_factory.mktemp("command"), config) as server:
        yield server


def dormouse(server: Server, *words: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DORMOUSE_URL": server.url}
    return subprocess.run(
        [DORMOUSE, *words], env=environment, input=text, capture_output=True, text=True, timeout=120
    )


def test_wake_ps_sleep(server: Server) -> None:
    assert dormouse(server, "wake", "tiny").returncode == 0
    listed = dormouse(server, "ps")
    assert listed.returncode == 0
    assert "tiny" in listed.stdout
    assert "awake" in listed.stdout
    assert dormouse(server, "sleep", "small", "--level", "2").returncode == 0
    status = json.loads(dormouse(server, "ps", "--json").stdout)["models"][0]
    assert (status["name"], status["state"], status["level"]) == ("tiny", "asleep", 2)


def test_chat(server: Server) -> None:
    answered = dormouse(server, "chat", "tiny", text="hello\n/exit\n")
    assert answered.returncode == 0, answered.stderr
    assert answered.stdout.strip()
    unknown = dormouse(server, "chat", "nope", text="hello\n")
    assert unknown.returncode == 1
    assert "nope" in unknown.stderr


def test_check(tmp_path: Path, server: Server, checkpoints: dict[str, Path]) -> None:
    good = tmp_path / "good.toml"
    good.write_text(f'[models.tiny]\npath = "{checkpoints["tiny-a"]}"')
    assert dormouse(server, "check", "--config", str(good)).returncode == 0
    bad = tmp_path / "bad.toml"
    bad.write_text(f'[models.tiny]\npath = "{checkpoints["tiny-a"]}"\nidle_timeuot = "5m"')
    refused = dormouse(server, "check", "--config", str(bad))
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"{bad}: models.tiny.idle_timeuot: ")
    assert refused.stderr.count("\n") == 1


def test_serve_a_model_without_a_config(tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    """The drop-in for ``vllm serve MODEL --enable-sleep-mode --port P``."""
    server = Server(tmp_path, "")
    path = str(checkpoints["tiny-a"])
    command = [DORMOUSE, "serve", path, "--enable-sleep-mode", "--port", str(server.port)]
    with server.log.open("wb") as log:
        server.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path)
    try:
        server.wait_ready()
        assert server.openai().models.list().data[0].id == path
        assert server.status(path)["state"] == "awake", "woken at start"
        assert server.http.post("/sleep?level=2").json() == {"status": "sleeping", "level": 2}
        assert server.http.get("/is_sleeping").json() == {"is_sleeping": True}
        assert server.http.post("/wake_up").json() == {"status": "awake", "tags": None}
        server.wait_until(lambda: "curl" in server.log.read_text(), "no line to try was printed", 5)
    finally:
        assert server.stop() == 0


def test_second_signal_exits_at_once(tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    server = Server(tmp_path, f'[models.large]\npath = "{checkpoints["large-a"]}"')
    server.start()
    assert server.process is not None
    body = {"model": "large", "prompt": "x", "max_tokens": 2000, "ignore_eos": True, "stream": True}
    with server.http.stream("POST", "/v1/completions", json=body) as stream:
        lines = stream.iter_lines()
        next(lines)
        server.signal(signal.SIGINT)
        time.sleep(0.3)
        assert server.process.poll() is None, "it drains"
        server.signal(signal.SIGINT)
        assert server.process.wait(2) != 0
    server.http.close()


def test_a_model_from_the_hub(tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    """Listed without a download, fetched on first use, served from the cache when the hub is gone."""
    config = '[sleep]\nidle_timeout = "never"\n[models.remote]\npath = "mice/tiny"'
    ask = {"model": "remote", "prompt": "hello", "max_tokens": 8, "temperature": 0}
    home = tmp_path / "hub"
    with hub.serve() as remote:
        remote.publish("mice/tiny", checkpoints["tiny-a"])
        environment = remote.environment(home)
        with running(tmp_path, config, **environment) as server:
            assert server.openai().models.list().data[0].id == "remote"
            assert not list(home.rglob("*.safetensors"))
            first = server.http.post("/v1/completions", json=ask)
            assert first.status_code == 200, first.text
            assert list(home.rglob("*.safetensors"))
    with running(tmp_path, config, **environment) as server:
        again = server.http.post("/v1/completions", json=ask)
        assert again.json()["choices"] == first.json()["choices"]


def test_a_port_in_use(server: Server, checkpoints: dict[str, Path]) -> None:
    refused = dormouse(server, "serve", str(checkpoints["tiny-a"]), "--port", str(server.port))
    assert refused.returncode == 1
    assert str(server.port) in refused.stderr
    assert "Traceback" not in refused.stderr
    assert dormouse(server, "ps", "--url", f"http://127.0.0.1:{free_port()}").returncode == 1
