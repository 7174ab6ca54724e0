"""Values of JSON, and those that a schema lists."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, TypeGuard

from gateway.chat.schemas.schema import Schema

TYPES: Final = ("null", "boolean", "integer", "number", "string", "array", "object")
LARGEST: Final = 2**53 - 1
"""Beyond it, readers of JSON differ in what a number is (RFC 7493)."""


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


def equal_key(value: Any) -> str:
    """The same for values that JSON holds equal: 1 and 1.0, not 1 and true."""
    return json.dumps(_whole_numbers(value), sort_keys=True)


def _whole_numbers(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {name: _whole_numbers(item) for name, item in value.items()}
    return [_whole_numbers(item) for item in value] if isinstance(value, list) else value
