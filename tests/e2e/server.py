"""The real server in a process of its own, and clients that check its answers against OpenAI's schema."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
from openai import AsyncOpenAI, OpenAI

from tests.openai_schema.clients import async_openai_client, http_client, openai_client

DORMOUSE = str(Path(sys.executable).with_name("dormouse"))


class Server:
    """``dormouse serve`` with the given config text. ``directory`` takes its config and its log."""

    def __init__(self, directory: Path, config: str, **environment: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = directory / "server.log"
        self._config = directory / "config.toml"
        self.configure(config)
        self._environment = {**os.environ, **environment}
        self.process: subprocess.Popen[bytes] | None = None
        self._clients = ExitStack()
        self.http = self.client()

    def configure(self, config: str) -> None:
        """Write the config file; what comes before its first section belongs to [server]."""
        self._config.write_text(f"[server]\nport = {self.port}\n{config}")

    def start(self) -> None:
        command = [DORMOUSE, "serve", "--config", str(self._config)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=self._environment)
        self.wait_ready()

    def wait_ready(self, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.process is not None
            if self.process.poll() is not None:
                raise AssertionError(
                    f"the server ended with {self.process.returncode}:\n{self.log.read_text()}"
                )
            try:
                if self.http.get("/ready").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"not ready in {seconds} s:\n{self.log.read_text()}")

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def reload(self) -> None:
        """Returns when the configuration has been read again."""
        told = self.log.read_text().count("reloaded")
        self.signal(signal.SIGHUP)
        self.wait_until(lambda: self.log.read_text().count("reloaded") > told, "not reloaded")

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            self._clients.close()

    def client(self, **options: Any) -> httpx.Client:
        """For what the SDK does not cover. Closed with the server, as the SDK's own is."""
        client = http_client(base_url=self.url, **{"timeout": 60, **options})
        self._clients.callback(client.close)
        return client

    @cached_property
    def sdk(self) -> OpenAI:
        """For those who ask often: making one takes longer than many an answer."""
        return self.openai()

    def openai(self, key: str = "none", **options: Any) -> OpenAI:
        client = openai_client(self.url, key, **options)
        self._clients.callback(client.close)
        return client

    def async_openai(self, key: str = "none", **options: Any) -> AsyncOpenAI:
        return async_openai_client(self.url, key, **options)

    def status(self, model: str) -> dict[str, Any]:
        models = self.http.get("/api/status").json()["models"]
        return next(entry for entry in models if entry["name"] == model)

    def wait_state(self, model: str, state: str, level: int | None = None, seconds: float = 20) -> float:
        """Seconds until the model is seen in the state."""
        return self.wait_until(
            lambda: (status := self.status(model))["state"] == state and level in (None, status["level"]),
            f"{model} is not {state}",
            seconds,
        )

    def wait_until(self, condition: Any, complaint: str, seconds: float = 20) -> float:
        started = time.monotonic()
        while not condition():
            if time.monotonic() - started > seconds:
                raise AssertionError(f"{complaint} after {seconds} s: {self.http.get('/api/status').text}")
            time.sleep(0.01)
        return time.monotonic() - started


@contextmanager
def running(directory: Path, config: str, **environment: str) -> Iterator[Server]:
    server = Server(directory, config, **environment)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def serving_the_demo(directory: Path) -> Iterator[Server]:
    """With the repository's own configuration, as `make serve` does it; ``directory`` takes the log."""
    server = Server(directory, "")
    command = [DORMOUSE, "serve", "--config", "config.toml", "--port", str(server.port)]
    with server.log.open("wb") as log:
        server.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=Path(__file__).parents[2])
    server.wait_ready()
    try:
        yield server
    finally:
        server.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
