"""Schemas of all kinds, by real grammars: random walks come to an end, and each of these is valid."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest

from gateway.chat.schemas.document import SchemaError
from gateway.chat.schemas.text import schema_text
from tests.grammar_walk import walker
from tests.schema_kinds import FORMATS, KINDS, REFUSED


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
    found = [*ended(KINDS[name], range(10), wide=False), *ended(KINDS[name], range(5), wide=True)]
    assert len(found) >= 13


@pytest.mark.parametrize("name", FORMATS)
def test_formats_are_what_validators_take_for_them(name: str) -> None:
    schema = {"type": "string", "format": name}
    assert len(ended(schema, range(80), wide=False)) == 80
    assert len(ended(schema, range(20), wide=True)) == 20


@pytest.mark.soak
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("name", KINDS)
def test_many_walks(name: str, wide: bool) -> None:
    assert len(ended(KINDS[name], range(1000, 1200), wide=wide)) >= 180


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
