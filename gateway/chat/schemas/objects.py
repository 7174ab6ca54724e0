"""What is said of all names of an object, and of how many there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from math import comb
from typing import Any, Final

from gateway.chat.schemas.document import Document, Schema, SchemaError
from gateway.chat.schemas.formats import as_pattern
from gateway.chat.schemas.patterns import ANY
from gateway.chat.schemas.values import listed

_MOST: Final = 256
"""Alternatives."""


def named(names: Any, schema: Mapping[str, Any], document: Document, place: str) -> Iterator[Schema]:
    """Of ``propertyNames``."""
    for part in document.conjuncts(names, place):
        if isinstance(part, bool):
            if not part:
                yield {"maxProperties": 0}
            continue
        if refused := part.keys() & {"not", "if", "anyOf", "oneOf"}:
            raise SchemaError(f"{min(refused)} cannot be enforced of names", place)
        values = listed(part)
        if values is not None:
            texts = [value for value in values if isinstance(value, str)]
            yield {"properties": dict.fromkeys(texts, True), "additionalProperties": False}
        patterns = [part["pattern"]] if "pattern" in part else []
        if "format" in part:
            patterns += as_pattern(part["format"])
        if "minLength" in part or "maxLength" in part:
            patterns.append(f"^{ANY}{{{part.get('minLength', 0)},{part.get('maxLength', '')}}}$")
        for pattern in patterns:
            yield {"patternProperties": {pattern: True}, "additionalProperties": False}


def counted(
    least_or_most: int, schema: Mapping[str, Any], document: Document, place: str
) -> Iterator[Schema]:
    """Of ``minProperties`` and ``maxProperties``, which grammars know where no property is optional: each
    choice of those that are."""
    required = schema.get("required", [])
    optional = [name for name in schema.get("properties", {}) if name not in required]
    every = len(required) + len(optional)
    least, most = schema.get("minProperties", 0), schema.get("maxProperties", every)
    closed = schema.get("additionalProperties", least > every) is False and "patternProperties" not in schema
    sizes = range(
        max(0, least - len(required)) if closed else 0, min(len(optional), most - len(required)) + 1
    )
    if sum(comb(len(optional), size) for size in sizes) > _MOST:
        raise SchemaError("that many optional properties cannot be counted", place)
    if optional:
        chosen = [names for size in sizes for names in combinations(optional, size)]
        yield {"anyOf": [_with(names, optional) for names in chosen]}


def _with(names: tuple[str, ...], optional: list[str]) -> Schema:
    return {"required": list(names), "properties": {name: False for name in optional if name not in names}}
