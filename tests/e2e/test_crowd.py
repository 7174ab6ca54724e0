"""Many clients at once: one wake for all, and two models that do not fit together."""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles

import pytest
from openai import AsyncOpenAI

from tests.e2e.server import Server, running
from tests.e2e.test_sleep import ask, two_levels


async def ask_all(client: AsyncOpenAI, model: str, texts: list[str]) -> list[str]:
    async def one(text: str) -> str:
        answer = await client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": text}], max_tokens=8, temperature=0
        )
        return answer.choices[0].message.content or ""

    return await asyncio.gather(*map(one, texts))


@pytest.mark.alone
def test_one_wake_for_64(tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    texts = [f"Question {number}" for number in range(64)]
    with running(tmp_path, two_levels(checkpoints, "never")) as server:
        right = [ask(server, "deep", text, tokens=8) for text in texts]
        server.http.post("/sleep?level=2&model=deep")
        wakes_before = server.log.read_text().count("deep: waking -> awake")

        async def crowd() -> list[str]:
            async with server.async_openai() as client:
                return await ask_all(client, "deep", texts)

        answers = asyncio.run(crowd())
        assert answers == right
        assert server.log.read_text().count("deep: waking -> awake") == wakes_before + 1
        assert server.status("deep")["in_flight"] == 0


TURN = 1.0


def cramped(checkpoints: dict[str, Path]) -> str:
    """Room for one of the two, not for both."""
    return f"""
[sleep]
idle_timeout = "never"
[memory]
device_limit = "170MiB"
[queue]
turn = "{TURN}s"
min_awake = "200ms"
max_wait = "60s"
[models.one]
path = "{checkpoints["large-a"]}"
max_running = 8
[models.two]
path = "{checkpoints["large-b"]}"
max_running = 8
"""


@dataclass
class Tally:
    waits: list[float] = field(default_factory=list)
    """Seconds in the queue and for the wake, as the server tells them."""
    answers: list[float] = field(default_factory=list)
    """Seconds of everything else of a request."""
    wrong: list[str] = field(default_factory=list)


async def client_loop(
    client: AsyncOpenAI, models: itertools.cycle[str], right: dict[str, str], until: float, tally: Tally
) -> None:
    while time.monotonic() < until:
        model = next(models)
        started = time.monotonic()
        response = await client.chat.completions.with_raw_response.create(
            model=model,
            messages=[{"role": "user", "content": "Tell me a story."}],
            max_tokens=8,
            temperature=0,
        )
        elapsed = time.monotonic() - started
        timing = dict(re.findall(r"(\w+);dur=([\d.]+)", response.headers["server-timing"]))
        wait = (float(timing["queue"]) + float(timing["wake"])) / 1000
        tally.waits.append(wait)
        tally.answers.append(elapsed - wait)
        text = response.parse().choices[0].message.content
        if text != right[model]:
            tally.wrong.append(f"{model}: {text!r}")


def crowd(server: Server, seconds: float, clients: int) -> Tally:
    right = {model: ask(server, model, tokens=8) for model in ("one", "two")}
    tally = Tally()

    async def run() -> None:
        async with server.async_openai(timeout=120) as client:
            until = time.monotonic() + seconds
            loops = [
                client_loop(client, itertools.cycle(order), right, until, tally)
                for order in itertools.islice(itertools.cycle((("one", "two"), ("two", "one"))), clients)
            ]
            await asyncio.gather(*loops)

    asyncio.run(run())
    return tally


def check(server: Server, tally: Tally) -> None:
    wakes = [server.status(model)["last_wake"]["seconds"] for model in ("one", "two")]
    bound = TURN + max(tally.answers) + sum(wakes)
    p99 = quantiles(tally.waits, n=100)[98]
    print(
        f"\n{len(tally.waits)} answers, wait median {quantiles(tally.waits, n=2)[0]:.2f} s, p99 {p99:.2f} s, "
        f"longest {max(tally.waits):.2f} s; turn + longest answer + two wakes = {bound:.2f} s"
    )
    assert not tally.wrong, f"{len(tally.wrong)} wrong: {tally.wrong[:3]}"
    assert max(tally.waits) <= bound
    for model in ("one", "two"):
        assert server.status(model)["in_flight"] == 0
    assert server.http.get("/health").status_code == 200


def test_two_that_do_not_fit_by_turns(tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    with running(tmp_path, cramped(checkpoints)) as server:
        right = {model: ask(server, model, tokens=8) for model in ("one", "two")}
        for model in ("one", "two") * 3:
            assert ask(server, model, tokens=8) == right[model]
            others = {"one": "two", "two": "one"}
            assert server.status(others[model])["state"] == "asleep"
            assert server.status(others[model])["level"] == 2


@pytest.mark.alone
def test_two_that_do_not_fit_at_once(tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    with running(tmp_path, cramped(checkpoints)) as server:
        check(server, crowd(server, seconds=10, clients=16))


@pytest.mark.soak
def test_two_that_do_not_fit_for_long(tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    with running(tmp_path, cramped(checkpoints)) as server:
        check(server, crowd(server, seconds=120, clients=16))


def test_the_device_limit_bounds_everything(tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    """Two busy models that fit together only as long as their KV stays small."""
    config = f"""
[memory]
device_limit = "30MiB"
[models.one]
path = "{checkpoints["tiny-a"]}"
[models.two]
path = "{checkpoints["tiny-b"]}"
"""
    peak = 0

    async def run(server: Server) -> list[str]:
        nonlocal peak
        async with server.async_openai(timeout=120) as client:
            asked = [
                client.completions.create(
                    model=model, prompt=f"{number} stories " * 60, max_tokens=300, temperature=0,
                    extra_body={"ignore_eos": True},
                )
                for number in range(12)
                for model in ("one", "two")
            ]  # fmt: skip
            answers = asyncio.gather(*asked)
            while not answers.done():
                device = await asyncio.to_thread(lambda: server.http.get("/api/status").json()["device"])
                peak = max(peak, device["used"])
                assert device["used"] <= device["limit"] == 30 * 2**20
                await asyncio.sleep(0.02)
            return [str(answer.choices[0].finish_reason) for answer in await answers]

    with running(tmp_path, config) as server:
        assert asyncio.run(run(server)) == ["length"] * 24
    assert peak > 20 * 2**20, "the limit was never near"
