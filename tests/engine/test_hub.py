"""Checkpoints from the hub: small files on opening, weights on loading, and from the cache ever after."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import engine
from tests import hub
from tests.engine.checkpoints import make_checkpoint

SCRIPT = """
import asyncio, json, os, sys
from contextlib import suppress
from urllib.request import urlopen
import engine
from engine import CheckpointError, GenerateRequest, SamplingParams

async def say(path):
    opened = engine.open(path, "cpu")
    seen = {"estimate_opened": engine.estimate(path) is not None, "to_wake": opened.footprint().to_wake}
    phases = []
    async def watch():
        while True:
            progress = opened.progress()
            if progress and progress.phase == "download":
                phases.append((progress.done, progress.total))
            await asyncio.sleep(0.001)
    watching = asyncio.create_task(watch())
    try:
        await opened.wake()
        sampling = SamplingParams(max_tokens=8, temperature=0.0, ignore_eos=True)
        request = GenerateRequest(prompt_ids=list(range(5, 15)), sampling=sampling)
        seen["ids"] = [t async for step in opened.generate(request) for d in step for t in d.token_ids]
        seen["weights"] = opened.footprint().weights
        seen["estimate"] = engine.estimate(path).weights_bytes
        await opened.sleep(2)
        await opened.wake()
    finally:
        watching.cancel()
        await opened.close()
    return seen | {"phases": phases}

results = []
for action, path in json.loads(sys.argv[1]):
    try:
        if action == "open":
            engine.open(path, "cpu")
            results.append({})
        elif action == "estimate":
            told = {"estimate": engine.estimate(path) is not None, "length": engine.max_model_len(path)}
            results.append(told)
        else:
            results.append(asyncio.run(say(path)))
    except CheckpointError as error:
        results.append({"error": str(error), "reason": error.reason})
    with suppress(OSError):
        urlopen(os.environ["HF_ENDPOINT"] + "/done")
print("RESULT" + json.dumps(results))
"""


def in_a_process(served: hub.Hub, home: Path, *actions: tuple[str, str]) -> list[dict[str, Any]]:
    """The results of ``actions`` in a fresh process that knows this hub only."""
    environment = os.environ | served.environment(home) | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, json.dumps(actions)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    results: list[dict[str, Any]] = json.loads(done.stdout.partition("RESULT")[2])
    return results


def fetched_by_action(served: hub.Hub) -> list[set[str]]:
    """The files that were downloaded in the course of each action; none may ask twice for one."""
    names: list[list[str]] = [[]]
    for method, path in served.requests:
        if path == "/done":
            names.append([])
        elif method == "GET" and "/resolve/" in path:
            names[-1].append(path.rpartition("/")[2])
    assert all(len(set(some)) == len(some) for some in names)
    return [set(some) for some in names[:-1]]


@pytest.fixture
def repository(llama: Path, tmp_path: Path) -> Path:
    """With what else a repository holds, none of which is wanted."""
    directory = Path(shutil.copytree(llama, tmp_path / "repository"))
    (directory / "pytorch_model.bin").write_bytes(b"pickle")
    (directory / "README.md").write_text("read me")
    (directory / "original").mkdir()
    (directory / "original" / "model.safetensors").write_bytes(b"another")
    (directory / "original" / "params.json").write_text("{}")
    return directory


def test_the_whole_way_and_then_without_the_hub(repository: Path, tmp_path: Path, llama: Path) -> None:
    home = tmp_path / "home"
    with hub.serve() as served:
        served.publish("mice/dormouse", repository)
        before, opened, after, local, said = in_a_process(
            served,
            home,
            ("estimate", "mice/dormouse"),
            ("open", "mice/dormouse"),
            ("estimate", "mice/dormouse"),
            ("say", str(llama)),
            ("say", "mice/dormouse"),
        )
        by_estimate, by_open, by_another, by_local, by_saying = fetched_by_action(served)
        assert before == {"estimate": False, "length": None}
        assert opened == {}
        assert said["ids"] == local["ids"]
        assert after == {"estimate": False, "length": engine.max_model_len(str(llama))}
        assert by_estimate == by_another == by_local == set()
        small = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}
        assert by_open == small | {"chat_template.jinja"}
        assert by_saying == {"model.safetensors"}
        assert not said["estimate_opened"], "the weights were not here yet"
        assert said["estimate"] == local["estimate"]
        size = (repository / "model.safetensors").stat().st_size
        assert all(done <= total for done, total in said["phases"])
        assert {total for _, total in said["phases"]} <= {0, size}

    shutil.rmtree(home / "hub" / "models--mice--dormouse" / "trees")  # as before huggingface_hub 2
    again, unknown = in_a_process(served, home, ("say", "mice/dormouse"), ("open", "mice/unknown"))
    assert again["ids"] == said["ids"]
    assert again["estimate_opened"]
    assert unknown["reason"] == "mice/unknown cannot be downloaded: the hub does not answer"


def test_what_the_hub_refuses_is_a_clear_error(repository: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(repository, tmp_path / "broken"))
    (broken / "model.safetensors").rename(broken / "model-00001.safetensors")
    index = {"weight_map": {"x": "model-00001.safetensors"}}
    (broken / "model.safetensors.index.json").write_text(json.dumps(index))
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "README.md").write_text("nothing here")
    pickled = Path(shutil.copytree(repository, tmp_path / "pickled"))
    (pickled / "model.safetensors").unlink()
    with hub.serve() as served:
        for directory in (broken, empty, pickled):
            served.publish(f"mice/{directory.name}", directory)
        served.broken.add("model-00001.safetensors")
        names = ("mice/unknown", "mice/empty", "mice/broken", "mice/pickled", "mice/..", "not an/id")
        unknown, nothing, half, no_weights, *bad = in_a_process(
            served, tmp_path / "home", *(("say", name) for name in names)
        )
    assert "mice/unknown cannot be downloaded" in unknown["reason"]
    assert "config.json" in nothing["reason"]
    assert "mice/broken cannot be downloaded" in half["reason"]
    assert "model.safetensors is missing" in no_weights["reason"]
    assert all("cannot be downloaded" in one["reason"] for one in bad)
    for one in (unknown, nothing, half, no_weights, *bad):
        assert "\n" not in one["error"]


def test_a_connection_that_breaks_is_told_as_such(repository: Path, tmp_path: Path) -> None:
    with hub.serve() as served:
        served.publish("mice/dormouse", repository)
        served.cut.add("model.safetensors")
        (said,) = in_a_process(served, tmp_path / "home", ("say", "mice/dormouse"))
    assert said["reason"] == "mice/dormouse cannot be downloaded: the connection to the hub broke"


def test_a_hub_that_fails_is_asked_once_for_what_is_whole(repository: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with hub.serve() as served:
        served.publish("mice/dormouse", repository)
        (said,) = in_a_process(served, home, ("say", "mice/dormouse"))
        shutil.rmtree(home / "hub" / "models--mice--dormouse" / "trees")
        served.requests.clear()
        served.resets = True
        (again,) = in_a_process(served, home, ("say", "mice/dormouse"))
    assert again["ids"] == said["ids"]
    asked = [path for _, path in served.requests if path != "/done"]
    assert asked == ["/api/models/mice/dormouse/revision/main"]


def test_a_branch_that_moves_on_between_opening_and_loading(repository: Path, tmp_path: Path) -> None:
    """Small files and weights are of one commit."""
    newer = make_checkpoint(tmp_path / "newer", seed=9)
    with hub.serve() as served:
        served.publish("mice/dormouse", repository)
        real = served.answer

        def answer(path: str) -> tuple[int, dict[str, str], bytes]:
            """Moves the branch as soon as all small files have been had."""
            if len(served.fetched()) == 5 and "mice/dormouse" not in moved:
                moved.append("mice/dormouse")
                served.publish("mice/dormouse", newer)
            return real(path)

        moved: list[str] = []
        served.answer = answer  # type: ignore[method-assign]
        names = (str(repository), "mice/dormouse", str(newer))
        old, said, new = in_a_process(served, tmp_path / "home", *(("say", name) for name in names))
    assert moved
    assert said["ids"] == old["ids"] != new["ids"]
