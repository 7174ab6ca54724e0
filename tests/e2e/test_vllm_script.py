"""What is written for vLLM's sleep mode runs as it is: one model from the command line, plain HTTP."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.bench.random_checkpoint import write_checkpoint
from tests.e2e.server import DORMOUSE, Server

SMALL: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "vocab_size": 4096,
}


@contextmanager
def serving(directory: Path, model: Path, *words: str) -> Iterator[Server]:
    """``vllm serve MODEL --enable-sleep-mode ...``, in our name."""
    server = Server(directory, "")
    command = [DORMOUSE, "serve", str(model), "--enable-sleep-mode", "--port", str(server.port), *words]
    with server.log.open("wb") as log:
        server.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=directory)
    try:
        server.wait_ready()
        yield server
    finally:
        assert server.stop() == 0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, checkpoints: dict[str, Path]) -> Path:
    """A checkpoint that the tests may change."""
    return Path(shutil.copytree(checkpoints["tiny-a"], tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("vllm"), model, "--served-model-name", "x") as server:
        yield server


def complete(server: Server) -> str:
    body = {"model": "x", "prompt": "The capital of France is", "max_tokens": 16, "temperature": 0}
    response = server.http.post("/v1/completions", json=body, timeout=60)
    response.raise_for_status()
    text: str = response.json()["choices"][0]["text"]
    return text


def post(server: Server, path: str, **options: Any) -> Any:
    response = server.http.post(path, timeout=60, **options)
    response.raise_for_status()
    return response.json()


def is_sleeping(server: Server) -> bool:
    answer: bool = server.http.get("/is_sleeping").json()["is_sleeping"]
    return answer


def test_level_1(server: Server) -> None:
    before = complete(server)
    assert not is_sleeping(server)
    assert post(server, "/sleep?level=1") == {"status": "sleeping", "level": 1}
    assert is_sleeping(server)
    for path in ("/health", "/version", "/v1/models", "/ready"):
        assert server.http.get(path).status_code == 200
    assert server.http.get("/v1/models").json()["data"][0]["id"] == "x"
    assert is_sleeping(server), "looking wakes nothing"
    assert post(server, "/wake_up") == {"status": "awake", "tags": None}
    assert not is_sleeping(server)
    assert complete(server) == before


def test_level_2(server: Server) -> None:
    before = complete(server)
    assert post(server, "/sleep", params={"level": "2"}) == {"status": "sleeping", "level": 2}
    assert post(server, "/wake_up?tags=weights") == {"status": "sleeping", "tags": ["weights"]}
    assert is_sleeping(server)
    assert post(server, "/collective_rpc", json={"method": "reload_weights"}) == {"results": [None]}
    assert is_sleeping(server)
    assert post(server, "/wake_up?tags=kv_cache") == {"status": "awake", "tags": ["kv_cache"]}
    assert not is_sleeping(server)
    assert post(server, "/reset_prefix_cache") == {"success": True}
    assert post(server, "/reset_prefix_cache?reset_running_requests=true") == {"success": True}
    assert complete(server) == before


def test_both_tags_at_once_and_a_request_in_place_of_the_second(server: Server) -> None:
    before = complete(server)
    post(server, "/sleep?level=2")
    woken = post(server, "/wake_up", params={"tags": ["weights", "kv_cache"]})
    assert woken == {"status": "awake", "tags": ["weights", "kv_cache"]}
    post(server, "/sleep?level=2&mode=abort")
    post(server, "/wake_up?tags=weights")
    assert complete(server) == before
    assert not is_sleeping(server)


@pytest.mark.parametrize("options", [{}, {"content": b""}, {"data": {}}, {"json": {}}, {"json": None}])
def test_posts_need_no_body(server: Server, options: dict[str, Any]) -> None:
    assert post(server, "/sleep", **options) == {"status": "sleeping", "level": 1}
    assert post(server, "/sleep?level=1", **options)["level"] == 1
    assert post(server, "/wake_up", **options)["status"] == "awake"
    assert post(server, "/reset_prefix_cache", **options) == {"success": True}


def test_curl(server: Server) -> None:
    def curl(path: str, *words: str) -> Any:
        command = ["curl", "-sS", "--fail", "-X", "POST", f"{server.url}{path}", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    if shutil.which("curl") is None:
        pytest.skip("there is no curl")
    assert curl("/sleep?level=2")["status"] == "sleeping"
    assert curl("/wake_up?tags=weights")["status"] == "sleeping"
    rpc = ("-H", "Content-Type: application/json", "-d", '{"method":"reload_weights"}')
    assert curl("/collective_rpc", *rpc) == {"results": [None]}
    assert curl("/wake_up?tags=kv_cache")["status"] == "awake"


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("level=0", "query.level"),
        ("level=3", "query.level"),
        ("level=-1", "query.level"),
        ("level=x", "query.level"),
        ("level=1&mode=soon", "query.mode"),
    ],
)
def test_a_bad_level_or_mode_does_nothing(server: Server, query: str, param: str) -> None:
    post(server, "/wake_up")
    response = server.http.post(f"/sleep?{query}")
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
    assert not is_sleeping(server)


def test_new_weights_and_others_that_do_not_fit(server: Server, model: Path, tmp_path: Path) -> None:
    """Awake, in a light and in a deep sleep, and between the two tags of a wake."""
    rpc = {"method": "reload_weights", "args": [], "kwargs": {}}
    answers = [complete(server)]
    for seed, steps in enumerate(([], ["/sleep?level=1"], ["/sleep?level=2"], ["/sleep?level=2", WEIGHTS])):
        for step in steps:
            post(server, step)
        replace_weights(model, write_checkpoint(tmp_path / str(seed), "60m", seed=10 + seed, **SMALL))
        assert post(server, "/collective_rpc", json=rpc) == {"results": [None]}
        assert is_sleeping(server) == bool(steps)
        post(server, "/wake_up?tags=kv_cache" if WEIGHTS in steps else "/wake_up")
        answers.append(complete(server))
    assert len(set(answers)) == 5, "each has its own"
    replace_weights(
        model, write_checkpoint(tmp_path / "wide", "60m", seed=3, **{**SMALL, "intermediate_size": 512})
    )
    refused = server.http.post("/collective_rpc", json=rpc)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "files_refused")
    assert "shape" in refused.json()["error"]["message"]
    assert not is_sleeping(server)
    assert complete(server) == answers[-1]


def test_files_that_change_in_a_deep_sleep_are_adopted_before_they_are_served(
    server: Server, model: Path, tmp_path: Path
) -> None:
    before = complete(server)
    post(server, "/sleep?level=2")
    replace_weights(model, write_checkpoint(tmp_path / "new", "60m", seed=20, **SMALL))
    for step in ("/wake_up?tags=weights", "/wake_up"):
        refused = server.http.post(step)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_wake_failed")
        assert "changed" in refused.json()["error"]["message"]
    assert post(server, "/collective_rpc", json={"method": "reload_weights"}) == {"results": [None]}
    assert post(server, "/wake_up?tags=kv_cache") == {"status": "sleeping", "tags": ["kv_cache"]}
    assert complete(server) != before
    assert not is_sleeping(server)


WEIGHTS = "/wake_up?tags=weights"


def replace_weights(model: Path, by: Path) -> None:
    """The files of weights alone, as a trainer writes them."""
    for file in by.glob("*.safetensors*"):
        shutil.copy(file, model / file.name)
