"""A server in a real memory cgroup (version 1; version 2 is tested on a made-up tree): shortage ends in level
2 instead of level 1, in a clear refusal at worst, never in a killed process."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.server import DORMOUSE, Server

MIB = 2**20
LIMIT = 570 * MIB
MODELS = ("a", "b", "c", "d")
"""Of 98 MiB each: they do not all fit beside what the process needs for itself."""


class Group:
    """A memory cgroup of our own, beneath the one that we are in."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def number(self, file: str) -> int:
        return int((self.path / file).read_text())

    @property
    def kills(self) -> int:
        found = re.search(r"^oom_kill (\d+)", (self.path / "memory.oom_control").read_text(), re.MULTILINE)
        assert found
        return int(found[1])

    def command(self, *words: str) -> list[str]:
        """To be run in here."""
        return ["sh", "-c", f'echo $$ > {self.path}/cgroup.procs && exec "$@"', "sh", *words]


@pytest.fixture
def group() -> Iterator[Group]:
    own = re.search(r"^\d+:memory:(.*)$", Path("/proc/self/cgroup").read_text(), re.MULTILINE)
    root = Path("/sys/fs/cgroup/memory")
    path = root / (own[1].strip("/") if own else "") / f"dormouse-test-{os.getpid()}"
    try:
        path.mkdir()
        (path / "memory.limit_in_bytes").write_text(str(LIMIT))
    except OSError as error:
        pytest.skip(f"no memory cgroup can be made here: {error}")
    try:
        yield Group(path)
    finally:
        _remove(path)


def _remove(path: Path) -> None:
    """As soon as the kernel has done with the processes that were in it."""
    deadline = time.monotonic() + 10
    while True:
        try:
            path.rmdir()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


class ConfinedServer(Server):
    """In the group."""

    def __init__(self, directory: Path, config: str, group: Group) -> None:
        super().__init__(directory, config, OMP_NUM_THREADS="1")
        self._group = group

    def start(self) -> None:
        command = self._group.command(DORMOUSE, "serve", "--config", str(self._config))
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=self._environment)
        self.wait_ready()


@contextmanager
def confined(directory: Path, checkpoints: dict[str, Path], group: Group) -> Iterator[ConfinedServer]:
    """Four models, of which only the system's own numbers tell how many fit."""
    paths = [checkpoints["large-a"], checkpoints["large-b"]] * 2
    sections = "".join(
        f'[models.{name}]\npath = "{path}"\n' for name, path in zip(MODELS, paths, strict=True)
    )
    config = f"""
[sleep]
idle_timeout = "never"
[memory]
device_limit = "100%"
host_limit = "100%"
[queue]
min_awake = "0s"
turn = "500ms"
max_wait = "60s"
{sections}
"""
    server = ConfinedServer(directory, config, group)
    server.start()
    try:
        yield server
        assert server.process is not None
        assert server.process.poll() is None, "it lives"
        assert group.kills == 0
    finally:
        server.stop()


@contextmanager
def hog(group: Group, size: int) -> Iterator[None]:
    """Another process in the group that takes so many bytes."""
    take = f"import sys; b = bytearray({size}); print(len(b), flush=True); sys.stdin.read()"
    command = group.command(sys.executable, "-c", take)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdin
        assert process.stdout.readline(), "it was killed itself"
        try:
            yield
        finally:
            process.stdin.close()
            process.wait(10)


def ask(server: Server, model: str) -> str:
    with server.openai(timeout=60) as client:
        answer = client.completions.create(model=model, prompt="Once", max_tokens=4, temperature=0)
    return answer.choices[0].text


def available(server: Server) -> int:
    return int(server.http.get("/api/status").json()["device"]["available"])


async def all_at_once(server: Server) -> list[str]:
    """Wakes side by side, right at the limit."""
    async with server.async_openai(timeout=120) as client:
        asked = [
            client.completions.create(model=name, prompt="Once", max_tokens=4, temperature=0)
            for name in MODELS * 3
        ]
        return [answer.choices[0].text for answer in await asyncio.gather(*asked)]


def test_all_are_served_and_as_many_sleep_lightly_as_fit(
    tmp_path: Path, checkpoints: dict[str, Path], group: Group
) -> None:
    with confined(tmp_path, checkpoints, group) as server:
        assert server.http.get("/api/status").json()["device"]["total"] == LIMIT
        right = {}
        for name in MODELS:
            right[name] = ask(server, name)
            server.http.post(f"/sleep?level=1&model={name}").raise_for_status()
        assert (right["a"], right["b"]) == (right["c"], right["d"])
        reached = [server.status(name)["level"] for name in MODELS]
        assert set(reached) == {1, 2}, "some fit, not all"
        assert asyncio.run(all_at_once(server)) == [right[name] for name in MODELS * 3]


@pytest.mark.alone
def test_another_process_that_grows(tmp_path: Path, checkpoints: dict[str, Path], group: Group) -> None:
    """First it costs the parked weights of one, no more than needed; then wakes are refused."""
    with confined(tmp_path, checkpoints, group) as server:
        right = {name: ask(server, name) for name in ("a", "b")}
        for name in ("a", "b"):
            assert server.http.post(f"/sleep?level=1&model={name}").json()["level"] == 1
        with hog(group, available(server) + 5 * MIB):
            # Which of them depends on how fast each was read.
            server.wait_until(lambda: 2 in [server.status(name)["level"] for name in ("a", "b")], "none left")
            time.sleep(2)
            assert sorted(server.status(name)["level"] for name in ("a", "b")) == [1, 2]
        server.http.post("/sleep?level=2").raise_for_status()
        with hog(group, available(server) - 40 * MIB):
            refused = server.http.post("/v1/completions", json={"model": "a", "prompt": "x"})
            assert refused.status_code == 503
            error = refused.json()["error"]
            assert error["code"] == "model_wake_failed"
            assert re.search(r"\d+ MiB needed, \d+ MiB available", error["message"])
            assert server.http.get("/health").status_code == 200
        server.http.post("/wake_up?model=a").raise_for_status()
        assert [ask(server, name) for name in ("a", "b")] == [right["a"], right["b"]]
