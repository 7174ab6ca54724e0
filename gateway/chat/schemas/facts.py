"""What a schema says of a value, as far as it tells two schemas apart."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from gateway.chat.schemas.schema import Schema
from gateway.chat.schemas.values import TYPES, is_number, listed, type_of


@dataclass(frozen=True, slots=True)
class Facts:
    never: bool
    choices: list[list[Schema]]
    """One of each must hold."""
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
    def of(cls, parts: Sequence[Schema]) -> Facts:
        said = [part for part in parts if isinstance(part, Mapping)]
        values = [found for part in said if (found := listed(part)) is not None]
        return cls(
            never=False in parts,
            choices=[
                part[key] for part in said for key in ("anyOf", "oneOf") if isinstance(part.get(key), list)
            ],
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
