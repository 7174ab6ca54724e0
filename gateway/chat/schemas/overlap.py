"""Of alternatives exactly one: whether any two can hold of one value, and if so, each without the other."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

from gateway.chat.schemas.document import Document, Schema, equal_key
from gateway.chat.schemas.values import TYPES, is_number, listed, type_of

_DEPTH = 8


def exactly_one(parts: Any, schema: Mapping[str, Any], document: Document, place: str) -> Iterator[Schema]:
    """Of ``oneOf``."""
    around = {"type": schema["type"]} if "type" in schema else {}
    found = []
    for part in parts:
        others = [
            {"not": other}
            for other in parts
            if other is not part and not disjoint({"allOf": [around, part]}, other, document, place)
        ]
        found.append({"allOf": [part, *others]} if others else part)
    yield {"anyOf": found}


def disjoint(one: Schema, other: Schema, document: Document, place: str, depth: int = 0) -> bool:
    """Whether no value can be both, as far as is told. Raises SchemaError."""
    ones, others = (document.conjuncts(schema, place) for schema in (one, other))
    if False in ones or False in others:
        return True
    if depth > _DEPTH:
        return False
    for parts, against in ((ones, other), (others, one)):
        for choices in _choices(parts):
            if all(disjoint(choice, against, document, place, depth + 1) for choice in choices):
                return True
    a, b = _Facts.of(ones), _Facts.of(others)
    kinds = a.kinds & b.kinds
    if not kinds or _no_common_value(a, b) or _no_common_value(b, a):
        return True
    if kinds <= {"integer", "number"}:
        return a.low > b.high or b.low > a.high
    if kinds == {"object"}:
        return any(
            _no_common_property(name, a, b, document, place, depth) for name in a.required | b.required
        )
    if kinds == {"array"}:
        return max(a.least, b.least) > 0 and any(
            disjoint(mine, theirs, document, place, depth + 1) for mine in a.first for theirs in b.first
        )
    return kinds == {"string"} and any(_begin_apart(mine, theirs) for mine in a.begins for theirs in b.begins)


def _begin_apart(one: str, other: str) -> bool:
    size = min(len(one), len(other))
    return one[:size] != other[:size]


def _choices(parts: list[Schema]) -> Iterator[list[Schema]]:
    for part in parts:
        if isinstance(part, Mapping):
            yield from (part[key] for key in ("anyOf", "oneOf") if isinstance(part.get(key), list))


@dataclass(frozen=True, slots=True)
class _Facts:
    kinds: frozenset[str]
    """``number``: one that is not whole."""
    values: list[Any] | None
    low: tuple[float, int]
    high: tuple[float, int]
    """Of numbers, and how far beyond: exclusive limits are a little further in."""
    required: frozenset[str]
    properties: list[Mapping[str, Schema]]
    closed: list[Mapping[str, Schema]]
    """Of which no others are allowed."""
    least: int
    first: list[Schema]
    """Of arrays: how many items, and of the first."""
    begins: list[str]
    """What texts begin with."""

    @classmethod
    def of(cls, parts: list[Schema]) -> _Facts:
        said = [part for part in parts if isinstance(part, Mapping)]
        values = [found for part in said if (found := listed(part)) is not None]
        return cls(
            kinds=frozenset(TYPES).intersection(*(_kinds(part) for part in said)),
            values=values[0] if values else None,
            low=max((_limit(part, "minimum", "exclusiveMinimum", 1) for part in said), default=(-inf, 0)),
            high=min((_limit(part, "maximum", "exclusiveMaximum", -1) for part in said), default=(inf, 0)),
            required=frozenset(name for part in said for name in part.get("required", [])),
            properties=[part.get("properties", {}) for part in said],
            least=max((part.get("minItems", 0) for part in said), default=0),
            first=[item for part in said for item in _first_item(part)],
            begins=[_beginning(part.get("pattern", "")) for part in said],
            closed=[
                part.get("properties", {})
                for part in said
                if part.get("additionalProperties") is False and "patternProperties" not in part
            ],
        )


def _first_item(part: Mapping[str, Any]) -> list[Schema]:
    items = part.get("prefixItems") or part.get("items", True)
    return items[:1] if isinstance(items, list) else [items]


def _beginning(pattern: str) -> str:
    """What is plain text in it up to the first character that may mean something else, or be repeated."""
    plain = re.match(r"\^([A-Za-z0-9_-]*)(?![*?{])", pattern)
    return plain[1] if plain and "|" not in pattern else ""


def _kinds(part: Mapping[str, Any]) -> set[str]:
    if (values := listed(part)) is not None:
        return {type_of(value) for value in values}
    kinds = part.get("type", TYPES)
    kinds = [kinds] if isinstance(kinds, str) else kinds
    return {*kinds, *(["integer"] if "number" in kinds else [])}


def _limit(part: Mapping[str, Any], inclusive: str, exclusive: str, inward: int) -> tuple[float, int]:
    found = [(part[inclusive], 0)] if is_number(part.get(inclusive)) else []
    found += [(part[exclusive], inward)] if is_number(part.get(exclusive)) else []
    return max(found, key=lambda limit: (inward * limit[0], abs(limit[1])), default=(-inward * inf, 0))


def _no_common_value(one: _Facts, other: _Facts) -> bool:
    if one.values is None:
        return False
    keys = None if other.values is None else {equal_key(value) for value in other.values}
    return not any(
        type_of(value) in other.kinds
        and (keys is None or equal_key(value) in keys)
        and (not is_number(value) or other.low <= (value, 0) <= other.high)
        for value in one.values
    )


def _no_common_property(
    name: str, one: _Facts, other: _Facts, document: Document, place: str, depth: int
) -> bool:
    """Of one that must be there."""
    if any(name not in closed for closed in one.closed + other.closed):
        return True
    return any(
        disjoint(mine[name], theirs[name], document, place, depth + 1)
        for mine in one.properties
        for theirs in other.properties
        if name in mine and name in theirs
    )
