"""Two models that do not fit together, both busy for longer than a turn: each is suspended for the other, and
its clients see a pause and nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from openai import AsyncOpenAI

from tests.e2e.server import Server, running

TOKENS = 40
CLIENTS = 2
"""Of each model."""
LIMITS = {"parked": "170MiB", "recomputed": "101MiB"}
"""By what becomes of the KV of who is suspended."""
SAMPLING = [{"temperature": 0.0}, {"temperature": 0.7, "seed": 9, "n": 2}]


def config(checkpoints: dict[str, Path], limit: str) -> str:
    return f"""
[sleep]
idle_timeout = "never"
[memory]
device_limit = "{limit}"
[queue]
turn = "500ms"
min_awake = "100ms"
[models.one]
path = "{checkpoints["large-a"]}"
[models.two]
path = "{checkpoints["large-b"]}"
"""


@dataclass
class Streamed:
    texts: dict[int, str] = field(default_factory=dict)
    came: list[float] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)


async def stream(client: AsyncOpenAI, model: str, number: int) -> Streamed:
    streamed = Streamed()
    chunks = await client.completions.create(
        model=model,
        prompt=f"Client {number} of {model} asks for a long story.",
        max_tokens=TOKENS,
        stream=True,
        extra_body={"ignore_eos": True},
        **SAMPLING[number % len(SAMPLING)],  # type: ignore[call-overload]
    )
    async for chunk in chunks:
        streamed.came.append(time.monotonic())
        for choice in chunk.choices:
            streamed.texts[choice.index] = streamed.texts.get(choice.index, "") + choice.text
            streamed.reasons += [choice.finish_reason] if choice.finish_reason else []
    return streamed


def streams(server: Server, *models: str, kept: list[int] | None = None) -> dict[str, list[Streamed]]:
    """Of all clients of these models at once. ``kept``: takes the bytes of KV that sleepers are
    seen with while the other one is awake."""

    async def watch() -> None:
        while kept is not None:
            statuses = (await asyncio.to_thread(server.http.get, "/api/status")).json()["models"]
            if any(one["state"] == "awake" for one in statuses):
                asleep = [
                    one for one in statuses if one["state"] == "asleep" and one["in_flight"] > one["queued"]
                ]
                kept.extend(one["kv_bytes"] for one in asleep)
            await asyncio.sleep(0.05)

    async def all_of() -> list[Streamed]:
        watching = asyncio.create_task(watch())
        async with server.async_openai(timeout=120) as client:
            asks = [stream(client, model, number) for model in models for number in range(CLIENTS)]
            answers = await asyncio.gather(*asks)
        watching.cancel()
        return answers

    found = asyncio.run(all_of())
    return {model: found[i * CLIENTS : (i + 1) * CLIENTS] for i, model in enumerate(models)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, checkpoints: dict[str, Path]) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("suspension"), config(checkpoints, LIMITS["parked"])) as server:
        yield server


@pytest.fixture(scope="module")
def alone(server: Server) -> dict[str, list[Streamed]]:
    """What each model's clients are told while nobody asks the other one."""
    return streams(server, "one") | streams(server, "two")


@pytest.mark.parametrize("kept", LIMITS)
def test_streams_of_two_models_that_take_turns(
    server: Server, alone: dict[str, list[Streamed]], checkpoints: dict[str, Path], kept: str
) -> None:
    server.http.post("/sleep?level=2").raise_for_status()
    server.configure(config(checkpoints, LIMITS[kept]))
    server.reload()
    before = len(server.log.read_text())
    seen: list[int] = []
    together = streams(server, "one", "two", kept=seen)

    assert any(seen) if kept == "parked" else 0 in seen
    log = server.log.read_text()[before:]
    for model in ("one", "two"):
        assert [one.texts for one in together[model]] == [one.texts for one in alone[model]]
        assert all(set(one.reasons) == {"length"} for one in together[model])
        assert f"{model}: draining -> asleep level 2 (turn" in log
        assert server.status(model)["in_flight"] == 0
    first = {model: min(one.came[0] for one in together[model]) for model in together}
    last = {model: max(one.came[-1] for one in together[model]) for model in together}
    assert max(first.values()) < min(last.values()), "neither waited for the other's end"
