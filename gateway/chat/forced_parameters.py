"""Grammars of arguments that are written one by one, between marks."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.chat.formats.tool_format import Parameters
from gateway.chat.lark import Lark, json_of
from gateway.chat.schemas.kinds import value_kinds

_ABOUT: Final = frozenset(
    {"$schema", "$defs", "definitions", "title", "description", "default", "examples", "deprecated"}
)
"""Words of a schema that forbid nothing."""
_OBJECT: Final = frozenset({"type", "properties", "required", "additionalProperties"})
_TEXT: Final = "text_value"
"""The rule of all values that are any text."""
_NO_KEY: Final = re.compile(r"[<>\"\n]")
_CHOICES: Final = frozenset({"type", "enum", "const"})


@dataclass(frozen=True, slots=True)
class _Marks:
    opening: str
    closing: str
    as_text: bool
    """The value between them stands as it is."""


def parameter_rules(
    lark: Lark, rule: str, parameters: Parameters, schema: Mapping[str, Any]
) -> list[str] | None:
    """``rule``, and those it needs, some of them shared; None for a schema that only JSON can keep to."""
    if not _is_listed(schema):
        return None
    required = schema.get("required", ())
    shared = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    parts, lines = [], []
    for at, (key, value) in enumerate(schema["properties"].items()):
        part = f"{rule}_{at}"
        marks = _marks(parameters, key, value)
        if _NO_KEY.search(key) or marks.closing.strip() in json.dumps(value, ensure_ascii=False):
            return None  # whoever reads it would take this for the end
        found = _parameter(lark, part, marks, {**value, **shared})
        if found is None:
            return None
        parts.append(part if key in required else f"{part}?")
        lines += found
    return [f"{rule}: {' '.join(parts)}", *lines]


def _is_listed(schema: Mapping[str, Any]) -> bool:
    """Whether it says only which properties there are, each with a schema, and which there must be."""
    properties, required = schema.get("properties"), schema.get("required", [])
    return (
        schema.keys() <= _OBJECT | _ABOUT
        and not schema.get("additionalProperties")
        and isinstance(properties, Mapping)
        and all(isinstance(value, Mapping) for value in properties.values())
        and isinstance(required, list)
        and properties.keys() >= set(required)
    )


def _marks(parameters: Parameters, key: str, schema: Mapping[str, Any]) -> _Marks:
    """Text where the value may be some: all of the types, if marks tell text from JSON."""
    kinds = value_kinds(schema)
    told_apart = parameters.text != parameters.json
    as_text = "string" in kinds
    if told_apart:
        as_text = kinds == {"string"} and (_is_free(schema) or _choices(schema) is not None)
    opening, closing = parameters.text if as_text else parameters.json
    return _Marks(opening.replace("$KEY", key), closing, as_text)


def _parameter(lark: Lark, rule: str, marks: _Marks, schema: Mapping[str, Any]) -> list[str] | None:
    value, opening, closing = f"{rule}_json", lark.text(marks.opening), lark.text(marks.closing)
    if not marks.as_text:
        return [f"{rule}: {opening} {value} {closing}", f"{value}: {json_of(schema)}"]
    if (choices := _choices(schema)) is not None:
        return [f"{rule}: {opening} ({' | '.join(map(lark.text, choices))}) {closing}"]
    if not _is_free(schema):
        return None
    end = marks.closing.strip()
    after = lark.text(marks.closing.rpartition(end)[2])
    return [f"{rule}: {opening} {_TEXT} {after}", lark.up_to(_TEXT, end)]


def _choices(schema: Mapping[str, Any]) -> list[str] | None:
    """Of a string that is one of several which can stand there as they are."""
    if schema.keys() - _CHOICES - _ABOUT or value_kinds(schema) != {"string"}:
        return None
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if not isinstance(values, list):
        return None
    plain = all(isinstance(value, str) and value == value.strip() and "<" not in value for value in values)
    return values if values and plain and all(values) else None


def _is_free(schema: Mapping[str, Any]) -> bool:
    """Whether it allows any string."""
    if schema.keys() <= _ABOUT | {"type"}:
        return "string" in value_kinds(schema)
    options = schema.get("anyOf")
    alone = schema.keys() <= _ABOUT | {"anyOf"}
    return (
        alone and isinstance(options, list) and any(isinstance(o, Mapping) and _is_free(o) for o in options)
    )
