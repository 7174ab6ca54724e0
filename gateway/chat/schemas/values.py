"""What values a schema can have, as far as its keywords tell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, TypeGuard

from gateway.chat.schemas.document import Document, Schema, equal_key

TYPES: Final = ("null", "boolean", "integer", "number", "string", "array", "object")
LARGEST: Final = 2**53 - 1
"""Beyond it, readers of JSON differ in what a number is (RFC 7493)."""
_MOST: Final = 64


def is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def numbers_in(value: Any) -> Iterator[int | float]:
    if is_number(value):
        yield value
    elif isinstance(value, list | Mapping):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from numbers_in(item)


def type_of(value: Any) -> str:
    """A whole number is an integer, however it is written."""
    if isinstance(value, str):
        return "string"
    if value is None or isinstance(value, bool):
        return "null" if value is None else "boolean"
    if is_number(value):
        return "integer" if value == int(value) else "number"
    return "array" if isinstance(value, list) else "object"


def listed(schema: Schema) -> list[Any] | None:
    """The values that ``const`` and ``enum`` leave."""
    if isinstance(schema, bool) or not schema.keys() & {"const", "enum"}:
        return None
    values: list[Any] = schema.get("enum", [schema.get("const")])
    return distinct(v for v in values if "const" not in schema or equal_key(v) == equal_key(schema["const"]))


def distinct(values: Iterable[Any]) -> list[Any]:
    return list({equal_key(value): value for value in values}.values())


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
