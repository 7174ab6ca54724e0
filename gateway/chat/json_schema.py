"""JSON schemas as answers are held to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

Schema = Mapping[str, Any]

_ONE: Final = ("items", "contains", "additionalProperties", "propertyNames", "not", "if", "then", "else")
_LISTS: Final = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
_NAMED: Final = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_SAY: Final = ("properties", "anyOf", "oneOf", "$ref", "if", "not", "dependentSchemas")
_OPEN: Final = ("additionalProperties", "patternProperties", "unevaluatedProperties")


def closed(schema: Schema) -> Schema:
    """The schema with no properties but those that it names, wherever it names some and says nothing of
    others: who asks for some wants no others, and a weak model would go on inventing them. All that it allows
    the schema allows. Where an object is spoken of in several places at once, each would forbid what the
    others name, so such a schema stays as it is."""
    return schema if any(map(_combines, _all(schema))) else _closed(schema)


def _closed(schema: Schema) -> Schema:
    found = dict(schema)
    for key, value in schema.items():
        if key in _ONE and isinstance(value, Mapping):
            found[key] = _closed(value)
        elif key in _LISTS and isinstance(value, list):
            found[key] = [_closed(item) if isinstance(item, Mapping) else item for item in value]
        elif key in _NAMED and isinstance(value, Mapping):
            found[key] = {
                name: _closed(item) if isinstance(item, Mapping) else item for name, item in value.items()
            }
    if "properties" in schema and not any(key in schema for key in _OPEN):
        found["additionalProperties"] = False
    return found


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
