"""The schema as it is extracted, and how."""

from __future__ import annotations

import json

import pytest

from tests.openai_schema.extract import ROOTS, SCHEMA_FILE, extract, structure


def test_only_structure_is_left() -> None:
    schema = {
        "type": "object",
        "title": "A mouse",
        "description": "Prose.",
        "x-ours": {"type": "string"},
        "required": ["description"],
        "properties": {"description": {"type": "string", "example": "Small.", "default": ""}, "title": True},
        "discriminator": {"propertyName": "description"},
    }
    assert structure(schema) == {
        "type": "object",
        "required": ["description"],
        "properties": {"description": {"type": "string"}, "title": True},
    }


def test_nullable_becomes_or_null() -> None:
    reference = {"$ref": "#/components/schemas/Mouse", "nullable": True}
    kept = {"type": "array", "items": {"anyOf": [{"$ref": "#/$defs/Mouse"}, {"type": "null"}]}}
    assert structure({"type": "array", "items": reference}) == kept
    assert structure({"type": "string", "nullable": False}) == {"type": "string"}


def test_a_keyword_that_nobody_has_thought_of_is_not_lost_in_silence() -> None:
    with pytest.raises(ValueError, match="unevaluatedItems"):
        structure({"anyOf": [{"type": "array", "unevaluatedItems": False}]})


def test_references_are_followed() -> None:
    schemas: dict[str, object] = {name: {"type": "object"} for name in (*ROOTS, "Unused")}
    schemas[ROOTS[0]] = {"items": {"$ref": "#/components/schemas/Nest"}}
    schemas["Nest"] = {"properties": {"mouse": {"$ref": "#/components/schemas/Mouse"}}}
    schemas["Mouse"] = {"properties": {"home": {"$ref": "#/components/schemas/Nest"}}}
    made = extract({"info": {"version": "1"}, "components": {"schemas": schemas}})
    assert (made["version"], made["$defs"].keys()) == ("1", {*ROOTS, "Nest", "Mouse"})


def test_the_file_is_whole_and_small() -> None:
    text = SCHEMA_FILE.read_text()
    made = json.loads(text)
    assert made["version"] and made["$defs"].keys() >= set(ROOTS)
    assert len(text) < 60_000
    assert text == json.dumps(made, indent=1, sort_keys=True) + "\n"
