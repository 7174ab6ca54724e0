"""A new configuration for the real server while it serves."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import openai
import pytest

from tests.e2e.server import Server, running
from tests.e2e.test_sleep import ask

TOKENS = 60


def config(models: dict[str, str], first: str = "") -> str:
    """``models``: the keys of each; ``first``: more keys of [server], or other sections."""
    sections = "".join(f"[models.{name}]\n{keys}\n" for name, keys in models.items())
    return f'{first}\n[sleep]\nidle_timeout = "never"\n{sections}'


def path(directory: Path) -> str:
    return f'path = "{directory}"\n'


def reload(server: Server, models: dict[str, str], first: str = "") -> None:
    """Returns when the server has read it."""
    server.configure(config(models, first))
    server.reload()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, checkpoints: dict[str, Path]) -> Iterator[Server]:
    """For those that begin with a configuration of their own."""
    models = {"first": path(checkpoints["tiny-a"])}
    with running(tmp_path_factory.mktemp("reload"), config(models)) as server:
        yield server


def names(server: Server) -> list[str]:
    return [model.id for model in server.openai().models.list()]


def stream(server: Server, model: str) -> Iterator[str]:
    """Its pieces; returns when the first one is there."""
    chunks = server.openai().chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "Tell me a story."}],
        max_tokens=TOKENS,
        temperature=0,
        stream=True,
    )
    pieces = (chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    return chain([next(pieces)], pieces)


def test_a_reload_touches_only_what_has_changed(server: Server, checkpoints: dict[str, Path]) -> None:
    steady, tiny_a, tiny_b = (path(checkpoints[name]) for name in ("large-a", "tiny-a", "tiny-b"))
    models = {"steady": steady, "other": tiny_a, "going": path(checkpoints["large-b"])}
    reload(server, models)
    undisturbed = ask(server, "steady", tokens=TOKENS)
    of_going = ask(server, "going", tokens=TOKENS)
    of_a = ask(server, "other")
    woken = server.status("steady")["last_wake"]
    used = server.http.get("/api/status").json()["device"]["used"]

    streaming, leaving = stream(server, "steady"), stream(server, "going")
    reload(server, {"new": tiny_b, "steady": steady, "other": tiny_a + 'aliases = ["alias"]\nlevel = 2\n'})
    assert names(server) == ["new", "steady", "other"]
    assert server.status("steady")["in_flight"] == 1, "its stream goes on"
    with pytest.raises(openai.NotFoundError):
        ask(server, "going")
    assert ask(server, "alias") == of_a
    assert "".join(streaming) == undisturbed
    assert "".join(leaving) == of_going
    assert server.status("steady")["last_wake"] == woken
    freed = 90 * 2**20
    server.wait_until(
        lambda: server.http.get("/api/status").json()["device"]["used"] < used - freed,
        "memory of the removed model is not given back",
    )

    of_b = ask(server, "new")
    reload(server, {"steady": steady, "other": tiny_b + "max_model_len = 512\n"})
    assert ask(server, "other") == of_b
    assert server.openai().models.retrieve("other").model_extra["max_model_len"] == 512
    assert server.status("steady")["last_wake"] == woken

    reload(server, {"steady": steady + 'idle_timeout = "250ms"\n', "other": tiny_b + "levl = 2\n"})
    assert f"{server.log.parent}/config.toml: models.other.levl: unknown key" in server.log.read_text()
    assert names(server) == ["steady", "other"]
    assert server.status("steady")["sleeps_in_seconds"] is None

    reload(server, {"steady": steady + 'idle_timeout = "250ms"\nlevel = 1\n'})
    server.wait_state("steady", "asleep", 1)
    assert server.status("steady")["last_wake"] == woken


def test_a_failed_model_tries_again_with_limits_and_files_as_they_are_now(
    server: Server, tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(checkpoints["tiny-a"], copy)
    models = {"m": path(copy)}
    too_little = '[memory]\ndevice_limit = "1MiB"'
    reload(server, models, too_little)
    with pytest.raises(openai.InternalServerError, match="not enough memory"):
        ask(server, "m")
    reload(server, models)
    before = ask(server, "m")
    server.http.post("/sleep?level=2&model=m")
    for file in copy.glob("*.safetensors"):
        os.utime(file)
    with pytest.raises(openai.InternalServerError):
        ask(server, "m")
    assert server.status("m")["state"] == "failed"
    reload(server, models)
    server.wait_state("m", "asleep", 2)
    assert ask(server, "m") == before


def test_a_watched_file_is_read_when_it_changes(tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    watch = "watch_config = true"
    models = {"a": path(checkpoints["tiny-a"])}
    with running(tmp_path, config(models, watch)) as server:
        ask(server, "a")
        woken = server.status("a")["last_wake"]
        server.configure(config({**models, "b": path(checkpoints["tiny-b"])}, watch))
        server.wait_until(lambda: names(server) == ["a", "b"], "the change is not seen")
        assert ask(server, "b")
        assert server.status("a")["last_wake"] == woken
