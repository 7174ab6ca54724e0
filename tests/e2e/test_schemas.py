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

POINT = {
    "type": "object",
    "properties": {"x": {"type": "number", "minimum": -1, "maximum": 1}, "y": {"type": "number"}},
    "required": ["x", "y"],
    "additionalProperties": False,
}
ITEM = {
    "type": "object",
    "properties": {
        "id": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 4}, "maxItems": 3},
    },
    "required": ["id", "tags"],
}


def an_object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


SCHEMAS: dict[str, dict[str, Any]] = {
    "object": an_object(name={"type": "string", "maxLength": 10}, age={"type": "integer", "minimum": 0}),
    "open object": {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]},
    "optional properties": {"type": "object", "properties": {name: {"type": "null"} for name in "abcd"}},
    "nested": an_object(a=an_object(b=an_object(c={"type": "boolean"}))),
    "enum": {"type": "array", "items": {"enum": ["red", 3, None, "blue"]}, "minItems": 1, "maxItems": 4},
    "array of objects": an_object(items={"type": "array", "items": ITEM, "minItems": 1, "maxItems": 3}),
    "tuple": {
        "type": "array",
        "prefixItems": [{"type": "string", "maxLength": 3}, {"type": "boolean"}],
        "items": False,
        "minItems": 2,
    },
    "anyOf": {"anyOf": [{"type": "null"}, an_object(x={"type": "number"}), {"const": "none"}]},
    "oneOf": {"oneOf": [{"type": "integer", "minimum": 10, "maximum": 20}, {"type": "boolean"}]},
    "references": {
        **an_object(start={"$ref": "#/$defs/point"}, end={"$ref": "#/$defs/point"}),
        "$defs": {"point": POINT},
    },
    "recursive": {
        "$ref": "#/$defs/tree",
        "$defs": {"tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 1}},
    },
    "pattern": an_object(code={"type": "string", "pattern": "^[A-Z]{3}-[0-9]{2,4}$"}),
    "formats": an_object(day={"type": "string", "format": "date"}, id={"type": "string", "format": "uuid"}),
    "unicode": an_object(größe={"enum": ["klein", "groß", "日本"]}, maus={"const": "🐭"}),
    "number": {"type": "number"},
    "integer": {"type": ["integer", "null"], "exclusiveMinimum": 3},
    "string": {"type": "string", "minLength": 2, "maxLength": 20},
}
TOKENS = 1000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, checkpoints: dict[str, Path]) -> Iterator[Server]:
    config = f'[models.random]\npath = "{checkpoints["tiny-a"]}"\n'
    with running(tmp_path_factory.mktemp("schemas"), config, OMP_NUM_THREADS="1") as server:
        yield server


async def ask(server: Server, name: str, seeds: range) -> list[Any]:
    schema = {"name": "x", "strict": True, "schema": SCHEMAS[name]}
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
    for name in names:
        validator = jsonschema_rs.validator_for(SCHEMAS[name], validate_formats=True)
        for choice in await ask(server, name, seeds):
            asked += 1
            if choice.finish_reason == "stop":
                ended += 1
                validator.validate(json.loads(choice.message.content))
    print(f"\n{ended} of {asked} answers came to an end, all of them valid")
    assert ended >= 0.9 * asked


async def test_some_of_each(server: Server) -> None:
    await check(server, list(SCHEMAS), range(4))


@pytest.mark.soak
@pytest.mark.parametrize("name", SCHEMAS)
async def test_many_of_each(server: Server, name: str) -> None:
    await check(server, [name], range(100))
