"""Bounded JSON schemas of all kinds, a model with random weights, temperature 1: nearly all answers come to
an end, and each of these is valid."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from tests.e2e.server import Server, running
from tests.schema_kinds import KINDS

TOKENS = 1000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, checkpoints: dict[str, Path]) -> Iterator[Server]:
    config = f'[models.random]\npath = "{checkpoints["tiny-a"]}"\n'
    with running(tmp_path_factory.mktemp("schemas"), config, OMP_NUM_THREADS="1") as server:
        yield server


async def ask(server: Server, name: str, seeds: range) -> list[Any]:
    schema = {"name": "x", "strict": True, "schema": KINDS[name]}
    async with server.async_openai(timeout=300) as client:
        asked = [
            client.chat.completions.create(
                model="random",
                messages=[{"role": "user", "content": name}],
                response_format={"type": "json_schema", "json_schema": schema},
                temperature=1,
                seed=seed,
                max_tokens=TOKENS,
            )
            for seed in seeds
        ]
        return [answer.choices[0] for answer in await asyncio.gather(*asked)]


async def check(server: Server, names: list[str], seeds: range) -> None:
    ended, asked = 0, 0
    answers = await asyncio.gather(*(ask(server, name, seeds) for name in names))
    for name, choices in zip(names, answers, strict=True):
        validator = jsonschema_rs.validator_for(KINDS[name], validate_formats=True)
        for choice in choices:
            asked += 1
            if choice.finish_reason == "stop":
                ended += 1
                validator.validate(json.loads(choice.message.content))
    print(f"\n{ended} of {asked} answers came to an end, all of them valid")
    assert ended >= 0.9 * asked


async def test_some_of_each(server: Server) -> None:
    await check(server, list(KINDS), range(1))


@pytest.mark.soak
@pytest.mark.parametrize("name", KINDS)
async def test_many_of_each(server: Server, name: str) -> None:
    await check(server, [name], range(100))
