"""Whether keywords have values that mean something, in what of a schema is used."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from gateway.chat.schemas.schema import SchemaError
from gateway.chat.schemas.values import LARGEST, TYPES, is_number, numbers_in

_LIMITS: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_COUNTS: Final = (
    *("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"),
    *("minContains", "maxContains"),
)
_PAIRS: Final = tuple(zip(("minimum", *_COUNTS[:6:2]), ("maximum", *_COUNTS[1:6:2]), strict=True))
_ONE: Final = (
    *("items", "additionalItems", "additionalProperties", "propertyNames", "contains", "not", "if", "then"),
    *("else", "unevaluatedItems", "unevaluatedProperties"),
)
_LISTS: Final = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
_NAMED: Final = ("properties", "patternProperties", "dependentSchemas", "dependencies")


class Checks:
    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._checked: set[int] = set()
        self.check(root, "#")

    def check(self, schema: Any, place: str) -> None:
        """With all within it, once. Raises SchemaError."""
        if isinstance(schema, bool) or id(schema) in self._checked:
            return
        self._checked.add(id(schema))
        if not isinstance(schema, Mapping):
            raise SchemaError("a schema is an object or a boolean", place)
        for key, value in schema.items():
            if wanted := _wanted(key, value):
                raise SchemaError(f"{key} must be {wanted}", f"{place}/{key}")
            for name, inner in _within(key, value):
                self.check(inner, f"{place}/{key}{name}")
        _check_numbers(schema, place)
        identity = schema.get("$id", schema.get("id"))
        based = isinstance(identity, str) and not identity.startswith("#")
        if based and schema is not self._root and '"$ref"' in json.dumps(schema):
            raise SchemaError("references below an $id of its own are not followed", place)


def _within(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The schemas in a keyword's value, and what leads on to them."""
    if key in _NAMED:
        for name, item in value.items():
            if key != "dependencies" or not isinstance(item, list):
                yield f"/{name}", item
    elif key in _LISTS and isinstance(value, list):
        yield from ((f"/{index}", item) for index, item in enumerate(value))
    elif key in _ONE:
        yield "", value


def _check_numbers(schema: Mapping[str, Any], place: str) -> None:
    """Raises SchemaError for those that readers of JSON differ in, and limits that leave nothing."""
    for key in ("const", "enum"):
        if any(abs(number) > LARGEST for number in numbers_in(schema.get(key))):
            raise SchemaError(f"{key} has a number beyond {LARGEST}", f"{place}/{key}")
    for key in _LIMITS:
        inward = 1 if key.lower().endswith("minimum") else -1
        if key in schema and inward * schema[key] > LARGEST:
            raise SchemaError(f"{key} leaves only numbers beyond {LARGEST}", f"{place}/{key}")
    for low, high in _PAIRS:
        if low in schema and high in schema and schema[low] > schema[high]:
            raise SchemaError(f"{low} {schema[low]} is more than {high} {schema[high]}", place)


def _wanted(key: str, value: Any) -> str | None:
    """What the keyword's value must be and is not."""
    if key in _LIMITS:
        draft_4 = isinstance(value, bool) and key.startswith("exclusive")
        return None if is_number(value) or draft_4 else "a number"
    if key == "multipleOf":
        return None if is_number(value) and value > 0 else "a number above 0"
    if key in _COUNTS:
        return None if is_number(value) and value >= 0 and value == int(value) else "a whole number"
    if key in ("pattern", "format"):
        return None if isinstance(value, str) else "a text"
    if key == "type":
        kinds = value if isinstance(value, list) else [value]
        return None if kinds and all(kind in TYPES for kind in kinds) else f"of {', '.join(TYPES)}"
    if key in (*_NAMED, "dependentRequired") and not isinstance(value, Mapping):
        return "an object"
    if key in ("enum", "allOf", "anyOf", "oneOf"):
        return None if isinstance(value, list) and value else "a list of some"
    if key == "prefixItems":
        return None if isinstance(value, list) else "a list"
    if key == "required":
        return None if _are_texts(value) else "a list of texts"
    if key in ("dependentRequired", "dependencies"):
        lists = [names for names in value.values() if key == "dependentRequired" or isinstance(names, list)]
        return None if all(map(_are_texts, lists)) else "of lists of texts"
    return None


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)
