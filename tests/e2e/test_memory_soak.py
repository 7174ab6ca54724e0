"""Hours in small: every kind of request, at random, and what the process really holds does not grow."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from statistics import median

import openai
import pytest
from openai import AsyncOpenAI

from tests.e2e.server import Server, running

MINUTES = 15
CLIENTS = 6
ROUND = 20.0
"""Seconds of load, after each of which all models are put to sleep and the memory is read."""
GRAMMARS = 32
"""That a model keeps compiled: they are there before memory is first read."""
SLACK = 24 * 2**20
"""Bytes that the allocator's free lists may come and go by."""

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}

Ask = Callable[[AsyncOpenAI, str, random.Random], Awaitable[object]]


def words(numbers: random.Random, most: int) -> str:
    return " ".join(f"w{numbers.randrange(3000)}" for _ in range(numbers.randint(1, most)))


def messages(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


async def whole(client: AsyncOpenAI, model: str, numbers: random.Random) -> None:
    await client.chat.completions.create(
        model=model,
        messages=messages(words(numbers, 60)),  # type: ignore[arg-type]
        max_tokens=numbers.randint(1, 40),
        temperature=numbers.choice([0, 1]),
        top_p=numbers.choice([0.5, 1]),
        n=numbers.choice([1, 1, 3]),
        presence_penalty=numbers.choice([0, 0.5]),
        logprobs=True,
        top_logprobs=numbers.randint(0, 5),
    )


async def streamed(client: AsyncOpenAI, model: str, numbers: random.Random) -> None:
    """Now and then the client leaves in the middle."""
    stop_after = numbers.choice([3, 1000])
    stream = await client.completions.create(
        model=model, prompt=words(numbers, 250), max_tokens=60, stream=True, n=numbers.choice([1, 2])
    )
    async for _ in stream:
        stop_after -= 1
        if not stop_after:
            await stream.close()
            return


async def constrained(
    client: AsyncOpenAI, model: str, numbers: random.Random, number: int | None = None
) -> None:
    number = numbers.randrange(200) if number is None else number
    schema = {"name": "person", "schema": {**SCHEMA, "title": f"t{number}"}}
    await client.chat.completions.create(
        model=model,
        messages=messages(words(numbers, 10)),  # type: ignore[arg-type]
        max_tokens=60,
        response_format={"type": "json_schema", "json_schema": schema},  # type: ignore[typeddict-item]
    )


async def same_beginning(client: AsyncOpenAI, model: str, numbers: random.Random) -> None:
    prompt = words(random.Random(numbers.randrange(5)), 200) + words(numbers, 10)
    await client.completions.create(model=model, prompt=prompt, max_tokens=8)


async def wrong(client: AsyncOpenAI, model: str, numbers: random.Random) -> None:
    with suppress(openai.BadRequestError):
        await client.completions.create(model=model, prompt="x " * 5000, max_tokens=5)
    with suppress(openai.NotFoundError):
        await client.completions.create(model=f"no-{numbers.random()}", prompt="x", max_tokens=5)


KINDS: list[Ask] = [whole, whole, streamed, streamed, constrained, same_beginning, wrong]


def config(checkpoints: dict[str, Path]) -> str:
    return f"""
[sleep]
idle_timeout = "700ms"
[models.a]
path = "{checkpoints["tiny-a"]}"
max_model_len = 2048
level = 2
[models.b]
path = "{checkpoints["tiny-b"]}"
max_model_len = 2048
level = 1
[models.c]
path = "{checkpoints["large-a"]}"
max_model_len = 2048
level = 2
"""


async def fill_caches(server: Server) -> None:
    async with server.async_openai() as client:
        for model in "abc":
            asks = [constrained(client, model, random.Random(n), n) for n in range(GRAMMARS)]
            await asyncio.gather(*asks)


async def load(server: Server, seconds: float, seed: int) -> int:
    """How many requests were answered."""
    until, done = time.monotonic() + seconds, 0
    async with server.async_openai() as client:

        async def one(number: int) -> None:
            nonlocal done
            numbers = random.Random(f"{seed} {number}")
            while time.monotonic() < until:
                await numbers.choice(KINDS)(client, numbers.choice("aabbc"), numbers)
                done += 1

        await asyncio.gather(*(one(number) for number in range(CLIENTS)))
    return done


def held(server: Server) -> int:
    """Bytes of the process's own memory, with all models at level 2."""
    server.wait_until(lambda: all(m["in_flight"] == 0 for m in statuses(server)), "requests are left")
    server.http.post("/sleep?level=2").raise_for_status()
    assert server.process is not None
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssAnon", "RssShmem")))


def statuses(server: Server) -> list[dict[str, int]]:
    return server.http.get("/api/status").json()["models"]  # type: ignore[no-any-return]


@pytest.mark.soak
def test_memory_does_not_grow(tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    with running(tmp_path, config(checkpoints)) as server:
        ends = time.monotonic() + MINUTES * 60
        samples, answered = [], 0
        asyncio.run(fill_caches(server))
        while time.monotonic() < ends:
            answered += asyncio.run(load(server, ROUND, len(samples)))
            samples.append(held(server))
        tenth = max(3, len(samples) // 10)
        early, late = median(samples[tenth : 3 * tenth]), median(samples[-2 * tenth :])
        mib = [round(sample / 2**20) for sample in samples]
        print(f"{answered} requests; MiB held after each round: {mib}")
        assert late <= early + SLACK, mib
