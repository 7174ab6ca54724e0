"""What is said of all names of an object, and of how many there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from math import comb
from typing import Any, Final

from gateway.chat.schemas.document import Document
from gateway.chat.schemas.formats import as_pattern
from gateway.chat.schemas.patterns import ANY
from gateway.chat.schemas.schema import Schema, SchemaError
from gateway.chat.schemas.values import listed

_MOST: Final = 256
"""Alternatives."""
_OF_NAMES: Final = ("pattern", "format", "maxLength")


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


def counted(limit: int, schema: Mapping[str, Any], document: Document, place: str) -> Iterator[Schema]:
    """Of ``minProperties`` and ``maxProperties``, which grammars know where no property is optional: each
    choice of those that are."""
    limits = {key: schema[key] for key in ("minProperties", "maxProperties") if key in schema}
    names, closed = _names(schema, document, place)
    required = schema.get("required", [])
    optional = [name for name in names if name not in required]
    every = len(required) + len(optional)
    closed = closed or ("additionalProperties" not in schema and limits.get("minProperties", 0) <= every)
    fewest = max(0, limits.get("minProperties", 0) - len(required))
    most = min(len(optional), limits.get("maxProperties", every) - len(required))
    if optional and closed and "maxProperties" not in limits:
        yield {"anyOf": _each_of(optional, range(fewest, fewest + 1), place)}
    elif optional:
        sizes = range(fewest if closed else 0, most + 1)
        without = [
            {**some, "properties": {name: False for name in optional if name not in some["required"]}}
            for some in _each_of(optional, sizes, place)
        ]
        yield {"anyOf": without}
    yield limits


def _names(schema: Mapping[str, Any], document: Document, place: str) -> tuple[list[str], bool]:
    """Those that there may be, and whether no others. Raises SchemaError where few may have to be several,
    as one may come twice."""
    names = list(schema.get("properties", {}))
    parts = [
        part for part in document.conjuncts(schema.get("propertyNames", True), place) if part is not True
    ]
    for part in parts:
        if isinstance(part, Mapping) and (values := listed(part)) is not None:
            return list(dict.fromkeys([*names, *values])), True
    patterns = "patternProperties" in schema or any(
        key in part for part in parts if part for key in _OF_NAMES
    )
    if patterns and schema.get("minProperties", 0) > max(1, len(schema.get("required", []))):
        raise SchemaError("names of a pattern cannot be counted", place)
    return names, schema.get("additionalProperties") is False and not patterns


def _each_of(names: Sequence[str], sizes: range, place: str) -> list[dict[str, Any]]:
    if sum(comb(len(names), size) for size in sizes) > _MOST:
        raise SchemaError("that many optional properties cannot be counted", place)
    found = [{"required": list(some)} for size in sizes for some in combinations(names, size)]
    if not found:
        raise SchemaError("there are not as many properties", place)
    return found
