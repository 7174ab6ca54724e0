"""A gateway with fake engines in a process of its own, and how to talk to it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

import httpx

from tests.openai_schema.clients import http_client


@dataclass(frozen=True)
class Process:
    """A gateway that has said where it listens."""

    popen: subprocess.Popen[str]
    url: str
    invitation: str
    """The line of shell that it offers to try."""

    def get(self, path: str) -> httpx.Response:
        with http_client() as client:
            return client.get(f"{self.url}{path}")

    def ask(self, model: str, text: str = "hello") -> httpx.Response:
        return self.post(_chat(model, text, stream=False))

    def post(self, body: dict[str, object]) -> httpx.Response:
        """A chat completion."""
        with http_client() as client:
            return client.post(f"{self.url}/v1/chat/completions", json=body)

    @contextmanager
    def streaming(self, model: str, text: str) -> Iterator[Iterator[str]]:
        """The lines of an answer that is under way."""
        url, body = f"{self.url}/v1/chat/completions", _chat(model, text, stream=True)
        with http_client() as client, client.stream("POST", url, json=body) as response:
            lines = response.iter_lines()
            next(lines)
            yield lines

    def signal(self, signum: signal.Signals) -> None:
        self.popen.send_signal(signum)

    def exit_code(self) -> int:
        return self.popen.wait(timeout=20)

    def log(self) -> str:
        """What it has logged, once it is over."""
        return _all(self.popen.stderr)


@contextmanager
def running(*words: str) -> Iterator[Process]:
    """`dormouse serve` with ``words`` on a free port, ready to answer."""
    with started("--port", "0", *words) as popen:
        assert popen.stdout is not None
        first = popen.stdout.readline()
        assert first.startswith("Dormouse is listening on http://"), first + _all(popen.stderr)
        yield Process(popen, first.split()[-1], popen.stdout.readline())


@contextmanager
def started(*words: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.gateway.fake_gateway", "serve", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as popen:
        try:
            yield popen
        finally:
            popen.kill()


def _chat(model: str, text: str, *, stream: bool) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": text}], "stream": stream}


def _all(pipe: IO[str] | None) -> str:
    assert pipe is not None
    return pipe.read()
