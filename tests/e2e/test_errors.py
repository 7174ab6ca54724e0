"""Every row of the interface's error table, by the real server, and what an error must not do: wake."""

from __future__ import annotations

import json
import re
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.e2e.server import Server, running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, checkpoints: dict[str, Path]) -> Iterator[Server]:
    config = f"""
api_keys = ["sesame"]
admin_keys = ["simsalabim"]
max_body = "64KiB"
[sleep]
idle_timeout = "never"
[models.tiny]
path = "{checkpoints["tiny-a"]}"
max_model_len = 256
aliases = ["small"]
[models.busy]
path = "{checkpoints["large-a"]}"
max_waiting = 2
max_wait = "1s"
max_running = 1
preload = true
"""
    with running(tmp_path_factory.mktemp("errors"), config) as server:
        server.http.headers["authorization"] = "Bearer sesame"
        yield server


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory, checkpoints: dict[str, Path]) -> Path:
    """A checkpoint that a test may damage."""
    return Path(shutil.copytree(checkpoints["tiny-a"], tmp_path_factory.mktemp("fragile") / "tiny"))


@pytest.fixture(scope="module")
def without_keys(
    tmp_path_factory: pytest.TempPathFactory, checkpoints: dict[str, Path], fragile: Path
) -> Iterator[Server]:
    config = f"""
[memory]
device_limit = "50MiB"
[models.fragile]
path = "{fragile}"
[models.healthy]
path = "{checkpoints["tiny-b"]}"
[models.large]
path = "{checkpoints["large-a"]}"
"""
    with running(tmp_path_factory.mktemp("without-keys"), config) as server:
        yield server


MESSAGES = [{"role": "user", "content": "hello"}]


def chat(server: Server, **body: Any) -> httpx.Response:
    given = {"model": "tiny", "messages": MESSAGES, "max_tokens": 4, "temperature": 0, **body}
    return server.http.post("/v1/chat/completions", json={k: v for k, v in given.items() if v is not None})


def error_of(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["x-request-id"]
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert not re.search(r"(^|[\s'\"])/\w", error["message"]), "no paths of the server"
    return error


def test_unknown_model(server: Server) -> None:
    error = error_of(chat(server, model="nope"), 404)
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert "tiny" in error["message"]
    with pytest.raises(openai.NotFoundError):
        server.openai("sesame").models.retrieve("nope")


@pytest.mark.parametrize(
    ("param", "body"),
    [
        ("messages", {"messages": "hello"}),
        ("messages", {"messages": None}),
        ("messages", {"messages": []}),
        ("temperature", {"temperature": "hot"}),
        ("temperature", {"temperature": 3}),
        ("top_p", {"top_p": 1.5}),
        ("max_tokens", {"max_tokens": 0}),
        ("max_tokens", {"max_tokens": 1.5}),
        ("stream_options", {"stream_options": {"include_usage": True}}),
        ("n", {"n": 0}),
        ("seed", {"seed": 2**70}),
        ("stop", {"stop": 5}),
        ("keep_alive", {"keep_alive": "soon"}),
    ],
)
def test_bad_parameters_wake_nothing(server: Server, param: str, body: dict[str, Any]) -> None:
    server.http.post("/sleep?level=2&model=tiny", headers={"authorization": "Bearer simsalabim"})
    before = server.status("tiny")["state"]
    error = error_of(chat(server, **body), 400)
    assert error["type"] == "invalid_request_error"
    assert (error["param"] or "").startswith(param)
    assert server.status("tiny")["state"] == before != "awake"


@pytest.mark.parametrize("body", [b"{", b"[]", b'"x"', b"", b"\xff\xfe", b'{"model": "tiny"'])
def test_bad_bodies(server: Server, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    error = error_of(server.http.post("/v1/chat/completions", content=body, headers=headers), 400)
    assert error["param"]


def test_too_long_a_prompt(server: Server) -> None:
    long = [{"role": "user", "content": "x" * 300}]
    error = error_of(chat(server, messages=long), 400)
    assert error["code"] == "context_length_exceeded"
    huge = [{"role": "user", "content": "x" * 60_000}]
    assert error_of(chat(server, messages=huge), 400)["code"] == "context_length_exceeded"


def test_streamed_requests_fail_before_the_stream(server: Server) -> None:
    response = chat(server, stream=True, temperature=9)
    assert response.headers["content-type"].startswith("application/json")
    error_of(response, 400)


@pytest.mark.parametrize("key", [None, "wrong", "Sesame", "simsalabi"])
def test_keys(server: Server, key: str | None) -> None:
    client = server.client(headers={"authorization": f"Bearer {key}"} if key else {})
    for method, path in (
        ("GET", "/v1/models"),
        ("POST", "/v1/chat/completions"),
        ("GET", "/api/status"),
        ("POST", "/sleep"),
    ):
        assert error_of(client.request(method, path), 401)["code"] == "invalid_api_key"
    for path in ("/health", "/ready", "/version"):
        assert client.get(path).status_code == 200


def test_admin_routes_need_an_admin_key(server: Server) -> None:
    for path in ("/sleep", "/wake_up", "/api/pin", "/api/unpin"):
        error_of(server.http.post(f"{path}?model=tiny"), 401)
    admin = server.client(headers={"x-api-key": "simsalabim"})
    assert admin.get("/v1/models").status_code == 200
    assert admin.post("/sleep?model=tiny").status_code == 200


def test_foreign_origin(server: Server) -> None:
    response = server.http.get("/v1/models", headers={"origin": "https://evil.example"})
    error_of(response, 403)
    own = server.http.get("/v1/models", headers={"origin": server.url})
    assert own.status_code == 200


def test_foreign_host_on_loopback_without_keys(without_keys: Server) -> None:
    error_of(without_keys.http.get("/v1/models", headers={"host": "evil.example"}), 403)
    own = without_keys.http.get("/v1/models", headers={"host": f"localhost:{without_keys.port}"})
    assert own.status_code == 200


def test_body_too_large(server: Server) -> None:
    error_of(chat(server, messages=[{"role": "user", "content": "x" * 70_000}]), 413)

    def chunks() -> Iterator[bytes]:
        for _ in range(80):
            yield b"x" * 1024

    error_of(server.http.post("/v1/chat/completions", content=chunks()), 413)


def test_no_such_route(server: Server) -> None:
    error_of(server.http.get("/v1/nothing"), 404)
    error_of(server.http.get("/v1/chat/completions"), 405)


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("/sleep?level=3&model=tiny", "query.level"),
        ("/sleep?level=deep&model=tiny", "query.level"),
        ("/sleep?mode=now&model=tiny", "query.mode"),
        ("/wake_up?tags=brain&model=tiny", "query.tags"),
    ],
)
def test_sleep_routes(server: Server, path: str, param: str) -> None:
    admin = {"authorization": "Bearer simsalabim"}
    assert error_of(server.http.post(path, headers=admin), 400)["param"] == param
    assert error_of(server.http.post("/sleep?model=nope", headers=admin), 404)["code"] == "model_not_found"


def test_queue_full_and_wait_timeout(server: Server) -> None:
    """One request runs until two others have waited too long, and a fourth finds the queue full."""
    body = {"model": "busy", "prompt": "x", "max_tokens": 3000, "ignore_eos": True}
    refused: list[httpx.Response] = []

    def ask() -> None:
        client = server.client(headers=dict(server.http.headers))
        refused.append(client.post("/v1/completions", json=body))

    with server.http.stream("POST", "/v1/completions", json={**body, "stream": True}) as first:
        lines = first.iter_lines()
        assert next(lines).startswith("data: ")
        waiting = [threading.Thread(target=ask) for _ in range(2)]
        for thread in waiting:
            thread.start()
        server.wait_until(lambda: server.status("busy")["queued"] == 2, "nobody waits", seconds=0.9)
        full = server.http.post("/v1/completions", json=body)
        for thread in waiting:
            thread.join()
        assert server.status("busy")["in_flight"] == 1, "the first one runs"
    assert error_of(full, 429)["code"] == "queue_full"
    assert [error_of(response, 503)["code"] for response in refused] == ["wait_timeout"] * 2
    assert all(int(response.headers["retry-after"]) >= 1 for response in (full, *refused))
    server.wait_until(lambda: server.status("busy")["in_flight"] == 0, "the first one is left")


def test_wake_failed_and_cool_down(without_keys: Server, fragile: Path, tmp_path: Path) -> None:
    server = without_keys
    before = chat(server, model="fragile").json()["choices"][0]["message"]["content"]
    server.http.post("/sleep?level=2&model=fragile")
    weights = next(fragile.glob("model-*.safetensors"))
    away = weights.rename(tmp_path / "away")
    for _ in range(2):
        response = chat(server, model="fragile")
        error = error_of(response, 503)
        assert error["code"] == "model_wake_failed"
        assert weights.name in error["message"]
        assert 1 <= int(response.headers["retry-after"]) <= 5
    streamed = chat(server, model="fragile", stream=True)
    assert error_of(streamed, 503)["code"] == "model_wake_failed"
    assert server.status("fragile")["state"] == "failed"
    assert chat(server, model="healthy").status_code == 200
    away.rename(weights)
    woken = server.http.post("/wake_up?model=fragile")
    assert woken.status_code == 200, "a manual wake overrides a cool-down"
    assert chat(server, model="fragile").json()["choices"][0]["message"]["content"] == before


def test_too_large_even_alone(without_keys: Server) -> None:
    error = error_of(chat(without_keys, model="large"), 503)
    assert error["code"] == "model_wake_failed"
    assert "MiB" in error["message"]


def test_shutting_down(tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    """The first SIGTERM drains: the stream goes on to its end, newcomers are turned away."""
    with running(tmp_path, f'[models.large]\npath = "{checkpoints["large-a"]}"') as server:
        body = {"model": "large", "prompt": "x", "max_tokens": 100, "ignore_eos": True, "stream": True}
        with server.http.stream("POST", "/v1/completions", json=body) as stream:
            lines = stream.iter_lines()
            assert next(lines).startswith("data: ")
            server.signal(signal.SIGTERM)
            server.wait_until(lambda: server.http.get("/ready").status_code == 503, "it does not drain", 1)
            assert server.http.get("/health").status_code == 200
            refused = server.http.post("/v1/completions", json={**body, "stream": False})
            assert error_of(refused, 503)["code"] == "shutting_down"
            rest = [line for line in lines if line.startswith("data: ")]
        assert rest[-1] == "data: [DONE]"
        assert json.loads(rest[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
        assert server.process is not None
        assert server.process.wait(20) == 0


def test_failure_in_mid_stream(server: Server) -> None:
    """A model that is put to sleep by force ends its streams with an error event."""
    admin = {"authorization": "Bearer simsalabim"}
    body = {"model": "busy", "prompt": "x", "max_tokens": 500, "ignore_eos": True, "stream": True}
    with server.http.stream("POST", "/v1/completions", json=body) as stream:
        lines = stream.iter_lines()
        assert next(lines).startswith("data: ")
        threading.Thread(
            target=server.http.post, args=("/sleep?mode=abort&model=busy",), kwargs={"headers": admin}
        ).start()
        rest = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert rest[-1] == "[DONE]"
    error = json.loads(rest[-2])["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == "model_asleep"
    server.wait_until(lambda: server.status("busy")["in_flight"] == 0, "the lease is held")
