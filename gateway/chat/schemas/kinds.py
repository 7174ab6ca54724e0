"""The types that a value may have, as far as its schema says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def value_kinds(schema: Any) -> set[str]:
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
