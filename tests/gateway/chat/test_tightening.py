from __future__ import annotations

from typing import Any

import pytest

from gateway.chat.json_schema import tightened

LARGEST = 2**53 - 1
NAMES_A = {"type": "object", "properties": {"a": {"type": "boolean"}}}
CLOSED_A = {**NAMES_A, "additionalProperties": False}
TAKES_ALL: dict[str, Any] = {"type": "object"}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (NAMES_A, CLOSED_A),
        (TAKES_ALL, TAKES_ALL),
        ({**NAMES_A, "additionalProperties": True}, {**NAMES_A, "additionalProperties": True}),
        ({"type": "array", "items": NAMES_A}, {"type": "array", "items": CLOSED_A}),
        ({"properties": {"x": NAMES_A}}, {"properties": {"x": CLOSED_A}, "additionalProperties": False}),
        ({"anyOf": [NAMES_A, {"type": "null"}]}, {"anyOf": [CLOSED_A, {"type": "null"}]}),
        ({"allOf": [NAMES_A]}, {"allOf": [CLOSED_A]}),
        (
            {"$ref": "#/$defs/a", "$defs": {"a": NAMES_A}},
            {"$ref": "#/$defs/a", "$defs": {"a": CLOSED_A}},
        ),
        ({"enum": [NAMES_A]}, {"enum": [NAMES_A]}),
        (
            {"type": {"no": "type"}, "items": 1, "allOf": {}},
            {"type": {"no": "type"}, "items": 1, "allOf": {}},
        ),
        (
            {"properties": {"allOf": NAMES_A, "anyOf": {"const": {"properties": {}}}}},
            {
                "properties": {"allOf": CLOSED_A, "anyOf": {"const": {"properties": {}}}},
                "additionalProperties": False,
            },
        ),
    ],
)
def test_objects_that_name_properties_get_no_others(schema: Any, expected: Any) -> None:
    assert tightened(schema) == expected


@pytest.mark.parametrize(
    "schema",
    [
        {"allOf": [NAMES_A, {"properties": {"b": {}}}]},
        {**NAMES_A, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
        {"allOf": [{"$ref": "#/$defs/a"}], "properties": {"b": {}}, "$defs": {"a": NAMES_A}},
        {"items": {"$ref": "#/$defs/a", "properties": {"b": {}}}, "$defs": {"a": NAMES_A}},
        {**NAMES_A, "if": NAMES_A, "then": {"properties": {"b": {}}}},
    ],
)
def test_what_is_said_in_several_places_stays_as_it_is(schema: Any) -> None:
    assert tightened(schema) == schema


@pytest.mark.parametrize(
    ("schema", "limits"),
    [
        ({"type": "number"}, (-LARGEST, LARGEST)),
        ({"type": "integer", "minimum": 0}, (0, LARGEST)),
        ({"type": ["null", "integer"], "maximum": 9}, (-LARGEST, 9)),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, (None, None)),
        ({"type": "number", "multipleOf": 5}, (None, None)),
        ({"type": "number", "enum": [1e300]}, (None, None)),
        ({"type": "string"}, (None, None)),
    ],
)
def test_numbers_are_those_that_every_reader_holds(schema: Any, limits: tuple[Any, Any]) -> None:
    within = tightened({"allOf": [{"items": schema}, {}], "properties": {}})["allOf"][0]["items"]
    for found in (tightened(schema), within):
        assert (found.get("minimum"), found.get("maximum")) == limits
        assert schema.items() <= found.items()


@pytest.mark.parametrize("odd", [{"properties": []}, {"items": 3}, {"allOf": "x"}, {"$defs": {"a": 1}}, {}])
def test_what_is_no_schema_is_left_to_who_compiles_it(odd: Any) -> None:
    tightened(odd)
