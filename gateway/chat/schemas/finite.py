"""All values that a schema may have, where these are few."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gateway.chat.schemas.document import Document
from gateway.chat.schemas.schema import Schema
from gateway.chat.schemas.values import TYPES, distinct, listed, type_of

_MOST: Final = 64


def finite(schema: Schema, document: Document, place: str) -> list[Any] | None:
    """All values that it may have, or more; None when these are not few. Raises SchemaError."""
    for part in document.conjuncts(schema, place):
        values = _own(part, document, place)
        if values is not None:
            return distinct(values)
    return None


def _own(part: Schema, document: Document, place: str) -> list[Any] | None:
    if isinstance(part, bool):
        return None if part else []
    if (values := listed(part)) is not None:
        return values
    for key in ("anyOf", "oneOf"):
        if key in part:
            each = [finite(item, document, place) for item in part[key]]
            return None if None in each else [value for values in each for value in values or []]
    kinds = part.get("type", TYPES)
    each = [_of_type(kind, part) for kind in (kinds if isinstance(kinds, list | tuple) else [kinds])]
    return None if None in each else [value for values in each for value in values or []]


def _of_type(kind: str, part: Mapping[str, Any]) -> list[Any] | None:
    if kind == "integer" and all(type_of(part.get(key)) == "integer" for key in ("minimum", "maximum")):
        low, high = int(part["minimum"]), int(part["maximum"])
        return list(range(low, high + 1)) if high - low < _MOST else None
    few: dict[str, list[Any]] = {"null": [None], "boolean": [False, True]}
    return few.get(kind)
