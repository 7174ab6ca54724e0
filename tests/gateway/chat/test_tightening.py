from __future__ import annotations

from typing import Any

import pytest

from gateway.chat.schemas.limits import NAME
from gateway.chat.schemas.tightening import tightened

LARGEST = 2**53 - 1
NAMES_A = {"type": "object", "properties": {"a": {"type": "boolean"}}}
CLOSED_A = {**NAMES_A, "additionalProperties": False}
TAKES_ALL: dict[str, Any] = {"type": "object"}


def of_some_length(schema: dict[str, Any], *names: str) -> dict[str, Any]:
    """With others than these names, which have a limit, and any values."""
    named = dict.fromkeys(names, True)
    others = {"properties": named, "patternProperties": {NAME: True}, "additionalProperties": False}
    return {**schema, "additionalProperties": {"$ref": "#/$defs/any"}, "allOf": [others]}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (NAMES_A, CLOSED_A),
        (TAKES_ALL, of_some_length(TAKES_ALL)),
        (
            {**NAMES_A, "additionalProperties": True},
            of_some_length({**NAMES_A, "additionalProperties": True}, "a"),
        ),
        ({"type": "array", "items": NAMES_A}, {"type": "array", "items": CLOSED_A}),
        (
            {"properties": {"x": NAMES_A}},
            {"type": ["object"], "properties": {"x": CLOSED_A}, "additionalProperties": False},
        ),
        ({"anyOf": [NAMES_A, {"type": "null"}]}, {"anyOf": [CLOSED_A, {"type": "null"}]}),
        ({"allOf": [NAMES_A]}, CLOSED_A),
        (
            {"$ref": "#/$defs/a", "$defs": {"a": NAMES_A}},
            {"$ref": "#/$defs/a", "$defs": {"a": CLOSED_A}},
        ),
        ({"enum": [NAMES_A]}, {"enum": [NAMES_A]}),
        (
            {"properties": {"allOf": NAMES_A, "anyOf": {"const": {"properties": {}}}}},
            {
                "type": ["object"],
                "properties": {"allOf": CLOSED_A, "anyOf": {"const": {"properties": {}}}},
                "additionalProperties": False,
            },
        ),
    ],
)
def test_objects_that_name_properties_get_no_others(schema: Any, expected: Any) -> None:
    found = tightened(schema)
    any_value = found.get("$defs", {}).pop("any", None)
    assert {key: value for key, value in found.items() if value or key != "$defs"} == expected
    assert (any_value is not None) == ("#/$defs/any" in str(expected))


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({}, {"$ref": "#/$defs/any"}),
        ({"type": "array"}, {"type": "array", "items": {"$ref": "#/$defs/any"}}),
        ({"type": "array", "items": True}, {"type": "array", "items": {"$ref": "#/$defs/any"}}),
        (
            {"type": "object", "properties": {"a": {}}, "required": ["b"]},
            {
                "type": "object",
                "properties": {"a": {"$ref": "#/$defs/any"}, "b": {"$ref": "#/$defs/any"}},
                "required": ["b"],
                "additionalProperties": False,
            },
        ),
    ],
)
def test_values_of_which_nothing_is_said_have_limits_too(schema: Any, expected: Any) -> None:
    found = tightened(schema)
    assert LARGEST in found.pop("$defs")["any"]["anyOf"][1].values()
    assert found == expected


BOTH = {"properties": {"a": True, "b": True}, "additionalProperties": False}
NAMES_B = {"properties": {"b": {"type": "null"}}}
CLOSED_B = {**NAMES_B, "additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"allOf": [NAMES_A, NAMES_B]}, {"allOf": [NAMES_A, NAMES_B], **BOTH}),
        (
            {**NAMES_A, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
            {
                "type": "object",
                "anyOf": [
                    {"required": ["a"], "properties": {"a": True}, "additionalProperties": False},
                    {"required": ["b"], **BOTH},
                ],
                "properties": NAMES_A["properties"],
            },
        ),
        (
            {"allOf": [{"$ref": "#/$defs/a"}], **NAMES_B, "$defs": {"a": NAMES_A}},
            {
                "allOf": [{"$ref": "#/$defs/a-part"}],
                "properties": {**NAMES_B["properties"], "a": True},
                "additionalProperties": False,
                "$defs": {"a-part": NAMES_A},
            },
        ),
        (
            {"allOf": [{"properties": {"x": NAMES_A}}, {"properties": {"x": NAMES_B}}]},
            {
                "type": ["object"],
                "allOf": [
                    {
                        "properties": {
                            "x": {**NAMES_A, **BOTH, "properties": {**NAMES_A["properties"], "b": True}}
                        }
                    },
                    {
                        "properties": {
                            "x": {**NAMES_B, **BOTH, "properties": {**NAMES_B["properties"], "a": True}}
                        }
                    },
                ],
                "properties": {"x": True},
                "additionalProperties": False,
            },
        ),
    ],
)
def test_what_is_said_in_several_places_is_closed_around_all(schema: Any, expected: Any) -> None:
    assert tightened(schema) == expected


def test_there_may_be_fewer_names_than_must_be() -> None:
    assert tightened(NAMES_A)["additionalProperties"] is False
    assert False is not tightened({**NAMES_A, "minProperties": 2})["additionalProperties"]


@pytest.mark.parametrize(
    ("schema", "limits"),
    [
        ({"type": "number"}, (-LARGEST, LARGEST, 1e-9)),
        ({"type": "integer", "minimum": 0}, (0, LARGEST, None)),
        ({"type": ["null", "integer"], "maximum": 9}, (-LARGEST, 9, None)),
        ({"type": "integer", "minimum": -(10**30), "maximum": 10**30}, (-LARGEST, LARGEST, None)),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, (None, None, 1e-9)),
        ({"type": "number", "minimum": 1e-8, "maximum": 2e-8}, (1e-8, 2e-8, None)),
        ({"type": "number", "multipleOf": 5}, (-LARGEST, LARGEST, 5)),
        ({"type": "integer", "multipleOf": 7919}, (None, None, 7919)),
        ({"type": "number", "multipleOf": 0.5, "minimum": 0}, (0, 10**9, 0.5)),
        ({"type": "number", "enum": [1e300]}, (None, None, None)),
        ({"minimum": 0}, (0, LARGEST, 1e-9)),
        ({"type": "string"}, (None, None, None)),
    ],
)
def test_numbers_are_those_that_every_reader_holds(schema: Any, limits: tuple[Any, Any, Any]) -> None:
    within = tightened({"allOf": [{"items": schema}, {}], "properties": {}})["allOf"][0]["items"]
    for found in (tightened(schema), within):
        assert tuple(map(found.get, ("minimum", "maximum", "multipleOf"))) == limits


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("^x-", r"^x-[\x{0}-\x{10FFFF}]{0,32}$"), ("^a$", "^a$"), ("a|b", "a|b")],
)
def test_names_of_a_pattern_end(pattern: str, expected: str) -> None:
    assert list(tightened({"patternProperties": {pattern: True}})["patternProperties"]) == [expected]
