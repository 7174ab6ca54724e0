"""Schemas of all kinds, by real grammars: random walks come to an end, and each of these is valid."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest

from engine import RequestError
from gateway.chat.schemas.schema import SchemaError
from gateway.chat.schemas.text import schema_text
from tests.grammar_walk import walker
from tests.schema_kinds import FORMATS, KINDS, REFUSED

UNBOUNDED = {"anything", "anything more", "undeclared but required", "oneOf, open"}
"""Kinds that allow texts of any length, which few of a large vocabulary's tokens end."""


def ended(schema: dict[str, Any], seeds: range, *, wide: bool) -> list[Any]:
    """The answers that came to an end, all of them valid."""
    validator = jsonschema_rs.validator_for(schema, validate_formats=True)
    text = schema_text(schema)
    found = [json.loads(said) for seed in seeds if (said := walker(wide).walk(text, seed)) is not None]
    for answer in found:
        validator.validate(answer)
    return found


@pytest.mark.parametrize("name", KINDS)
def test_walks_end_and_are_valid(name: str) -> None:
    found = [*ended(KINDS[name], range(4), wide=False), *ended(KINDS[name], range(2), wide=True)]
    assert len(found) >= 5


@pytest.mark.parametrize("name", FORMATS)
def test_formats_are_what_validators_take_for_them(name: str) -> None:
    schema = {"type": "string", "format": name}
    assert len(ended(schema, range(25), wide=False)) == 25
    assert len(ended(schema, range(5), wide=True)) == 5


@pytest.mark.soak
@pytest.mark.parametrize("name", KINDS)
def test_many_walks(name: str) -> None:
    assert len(ended(KINDS[name], range(1000, 1200), wide=False)) >= 180
    assert len(ended(KINDS[name], range(1000, 1040), wide=True)) >= (20 if name in UNBOUNDED else 36)


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("set", 20),
        ("sets", 30),
        ("so many properties", 10),
        ("not", 20),
        ("conditions", 10),
        ("oneOf, required", 15),
    ],
)
def test_what_is_rewritten_leaves_a_choice(name: str, least: int) -> None:
    assert len({json.dumps(answer) for answer in ended(KINDS[name], range(60), wide=False)}) >= least


@pytest.mark.parametrize(("schema", "words"), REFUSED)
def test_what_cannot_be_enforced_is_refused_by_its_place(schema: Any, words: str) -> None:
    with pytest.raises(SchemaError) as caught:
        schema_text(schema)
    assert all(word in str(caught.value) for word in words.split("…")), caught.value


def test_names_that_must_not_be_are_counted_too() -> None:
    denied = {
        "type": "object",
        "properties": {"a": {"type": "null"}, "d": {"type": "null"}},
        "required": ["a"],
    }
    few = {"type": "object", "properties": {"b": {"type": "null"}}, "maxProperties": 1}
    with pytest.raises(RequestError, match="maxProperties"):
        ended({"oneOf": [denied, few]}, range(1), wide=False)


ODD = (3, -1, 1.5, "x", [], {}, None, True, [{}], [3], {"a": 3}, {"$ref": "#/$defs"})


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in inner:
        yield (*path, name)
        yield from places(item, (*path, name))


def test_what_is_no_schema_is_refused_or_means_nothing() -> None:
    chance, refused = random.Random(0), 0
    for _ in range(2000):
        schema = copy.deepcopy(chance.choice(list(KINDS.values())))
        *path, last = chance.choice([place for place in places(schema) if place[0] != "enum"] or [("type",)])
        at: Any = schema
        for name in path:
            at = at[name]
        at[last] = copy.deepcopy(chance.choice(ODD))
        try:
            schema_text(schema)
        except SchemaError:
            refused += 1
    assert refused > 500
