"""Models that sleep by themselves and wake unnoticed, through the real server and the real SDK."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.server import Server, running

IDLE = 0.25


def ask(server: Server, model: str, text: str = "Tell me a story.", tokens: int = 24) -> str:
    answer = server.sdk.chat.completions.create(
        model=model, messages=[{"role": "user", "content": text}], max_tokens=tokens, temperature=0
    )
    return answer.choices[0].message.content or ""


def two_levels(checkpoints: dict[str, Path], idle: str) -> str:
    return f"""
[sleep]
idle_timeout = "{idle}"
[models.light]
path = "{checkpoints["tiny-a"]}"
level = 1
[models.deep]
path = "{checkpoints["tiny-b"]}"
level = 2
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, checkpoints: dict[str, Path]) -> Iterator[Server]:
    more = f"""
[models.sinking]
path = "{checkpoints["tiny-a"]}"
level = 1
deepen_after = "500ms"
[models.by-hand]
path = "{checkpoints["tiny-a"]}"
level = 1
idle_timeout = "never"
[models.pinned]
path = "{checkpoints["tiny-a"]}"
preload = true
pinned = true
"""
    config = two_levels(checkpoints, "250ms") + more
    with running(tmp_path_factory.mktemp("sleep"), config) as server:
        yield server


def sleep_rounds(server: Server, rounds: int) -> None:
    """Each round both models fall asleep by themselves, in time, and answer as before."""
    levels = {"light": 1, "deep": 2}
    before = {model: ask(server, model) for model in levels}
    assert all(before.values())
    assert before["light"] != before["deep"]
    for _ in range(rounds):
        for model, level in levels.items():
            asked = ask(server, model)
            last_byte = time.monotonic()
            assert asked == before[model]
            server.wait_state(model, "asleep", level)
            slept_after = time.monotonic() - last_byte
            # Seen by polling, so a little later than it happened.
            assert slept_after <= 1.5 * IDLE + 0.1, f"{model} slept after {slept_after:.3f} s"


@pytest.mark.alone
def test_five_rounds(server: Server) -> None:
    sleep_rounds(server, 5)


@pytest.mark.soak
def test_hundred_rounds(server: Server) -> None:
    sleep_rounds(server, 100)


def test_streaming_wakes_too(server: Server) -> None:
    whole = ask(server, "deep")
    server.wait_state("deep", "asleep", 2)
    stream = server.sdk.chat.completions.create(
        model="deep",
        messages=[{"role": "user", "content": "Tell me a story."}],
        max_tokens=24,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 24


def test_looking_never_wakes_nor_keeps_awake(server: Server) -> None:
    ask(server, "deep")
    for _ in range(100):
        for path in ("/v1/models", "/v1/models/deep", "/api/status", "/health", "/ready", "/is_sleeping"):
            assert server.http.get(path).status_code == 200
        if server.status("deep")["state"] == "asleep":
            break
    server.wait_state("deep", "asleep", 2, seconds=2)
    for path in ("/v1/models", "/api/status", "/health", "/is_sleeping?model=deep"):
        server.http.get(path)
    assert server.status("deep")["state"] == "asleep"
    assert server.http.get("/is_sleeping?model=deep").json() == {"is_sleeping": True}


def test_deepens_after_a_while(server: Server) -> None:
    before = ask(server, "sinking")
    server.wait_state("sinking", "asleep", 1)
    assert server.status("sinking")["host_bytes"] > 0
    server.wait_state("sinking", "asleep", 2, seconds=5)
    assert server.status("sinking")["host_bytes"] == 0
    assert server.status("sinking")["device_bytes"] < 2**20
    assert ask(server, "sinking") == before


def test_manual_sleep_and_wake(server: Server) -> None:
    before = ask(server, "by-hand")
    assert server.http.post("/sleep?level=2&model=by-hand").json() == {"status": "sleeping", "level": 2}
    assert server.http.get("/is_sleeping?model=by-hand").json() == {"is_sleeping": True}
    half = server.http.post("/wake_up?model=by-hand&tags=weights")
    assert half.json() == {"status": "sleeping", "tags": ["weights"]}
    assert server.http.get("/is_sleeping?model=by-hand").json() == {"is_sleeping": True}
    assert ask(server, "by-hand") == before
    assert server.http.post("/sleep?model=by-hand").json() == {"status": "sleeping", "level": 1}
    assert server.http.post("/wake_up?model=by-hand").json() == {"status": "awake", "tags": None}
    assert server.status("by-hand")["state"] == "awake"
    assert ask(server, "by-hand") == before


def test_preload_and_pinned(server: Server) -> None:
    assert server.status("pinned")["state"] == "awake"
    time.sleep(1)
    assert server.status("pinned")["state"] == "awake"
