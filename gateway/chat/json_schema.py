"""JSON schemas as answers are held to them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

Schema = Mapping[str, Any]

_ONE: Final = ("items", "contains", "additionalProperties", "propertyNames", "not", "if", "then", "else")
_LISTS: Final = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
_NAMED: Final = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_SAY: Final = ("properties", "anyOf", "oneOf", "$ref", "if", "not", "dependentSchemas")
_EXACT: Final = ("enum", "const", "multipleOf")
_LONGEST: Final = 256 * 1024
_LARGEST: Final = 2**53 - 1
_OPEN: Final = ("additionalProperties", "patternProperties", "unevaluatedProperties")


def schema_text(schema: Schema, **more: Any) -> str:
    """As JSON, tightened, with ``more`` keys. What is too long for any engine stays as it is. Raises
    RecursionError."""
    text = json.dumps({**schema, **more}, ensure_ascii=False)
    if len(text) > _LONGEST:
        return text
    return json.dumps({**tightened(schema), **more}, ensure_ascii=False)


def tightened(schema: Schema) -> Schema:
    """A schema that allows less, of what it allows.

    No properties but those that it names, wherever it names some and says nothing of others: who asks for
    some wants no others, and a weak model would go on inventing them. Where an object is spoken of in several
    places at once, each would forbid what the others name, so there it stays as it is. And no numbers that
    readers of JSON differ in (RFC 7493)."""
    close = not any(map(_combines, _all(schema)))
    return _tightened(schema, close)


def _tightened(schema: Schema, close: bool) -> Schema:
    def inner(value: Any) -> Any:
        return _tightened(value, close) if isinstance(value, Mapping) else value

    found = dict(schema)
    for key, value in schema.items():
        if key in _ONE and isinstance(value, Mapping):
            found[key] = inner(value)
        elif key in _LISTS and isinstance(value, list):
            found[key] = [inner(item) for item in value]
        elif key in _NAMED and isinstance(value, Mapping):
            found[key] = {name: inner(item) for name, item in value.items()}
    if close and "properties" in schema and not any(key in schema for key in _OPEN):
        found["additionalProperties"] = False
    return {**found, **_number_limits(schema)}


def _number_limits(schema: Schema) -> dict[str, int]:
    """Limits that a number lacks."""
    kinds = schema.get("type")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if not any(kind in kinds for kind in ("number", "integer")) or any(key in schema for key in _EXACT):
        return {}
    limits = {}
    if not any(key in schema for key in ("minimum", "exclusiveMinimum")):
        limits["minimum"] = -_LARGEST
    if not any(key in schema for key in ("maximum", "exclusiveMaximum")):
        limits["maximum"] = _LARGEST
    return limits


def _combines(schema: Schema) -> bool:
    """Whether more than one part of it may speak of the same object."""
    every = schema.get("allOf")
    parts = len(every) if isinstance(every, list) else 0
    return parts + sum(key in schema for key in _SAY) > 1


def _all(schema: Schema) -> Iterator[Schema]:
    """It and all within it."""
    yield schema
    for key, value in schema.items():
        inner: Any = []
        if key in _NAMED and isinstance(value, Mapping):
            inner = value.values()
        elif key in _LISTS and isinstance(value, list):
            inner = value
        elif key in _ONE:
            inner = [value]
        for item in inner:
            if isinstance(item, Mapping):
                yield from _all(item)


def value_kinds(schema: Any) -> set[str]:
    """The types that a value may have, as far as its schema says."""
    if not isinstance(schema, Mapping):
        return set()
    told = schema.get("type")
    kinds = set(told) if isinstance(told, list) else {told} if isinstance(told, str) else set()
    for parts in (schema.get("anyOf"), schema.get("oneOf")):
        kinds |= {kind for part in (parts if isinstance(parts, list) else ()) for kind in value_kinds(part)}
    values = schema.get("enum")
    if not kinds and isinstance(values, list) and all(isinstance(value, str) for value in values):
        kinds = {"string"}
    return kinds
