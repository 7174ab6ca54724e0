"""What is said of an array's items together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations, permutations
from math import comb, perm
from typing import Any, Final

from gateway.chat.schemas.document import Document
from gateway.chat.schemas.finite import finite
from gateway.chat.schemas.overlap import Overlap
from gateway.chat.schemas.schema import Schema, SchemaError
from gateway.chat.schemas.values import TYPES

_MOST: Final = 400
"""Alternatives."""
_PLACES: Final = 16
"""Where the item that an array must contain may be, when it may be long."""


def distinct(wanted: Any, schema: Mapping[str, Any], document: Document, place: str) -> Iterator[Schema]:
    """Of ``uniqueItems``: each order of few values; of more, each choice in the order of the schema."""
    if wanted is not True or schema.get("maxItems", 2) <= 1:
        return
    if "prefixItems" in schema or isinstance(schema.get("items"), list):
        if not _told_apart(schema, document, place):
            raise SchemaError("uniqueItems cannot be enforced of items that may be the same", place)
        return
    values = finite(schema.get("items", True), document, place)
    if values is None:
        raise SchemaError("uniqueItems cannot be enforced unless the items are of few values", place)
    sizes = range(schema.get("minItems", 0), min(len(values), schema.get("maxItems", len(values))) + 1)
    for count, choose in ((perm, permutations), (comb, combinations)):
        if sum(count(len(values), size) for size in sizes) <= _MOST:
            lists = [list(chosen) for size in sizes for chosen in choose(values, size)]
            yield _of_arrays(schema, [{"const": chosen} for chosen in lists])
            return
    raise SchemaError("uniqueItems cannot be enforced for that many values", place)


def containing(item: Any, schema: Mapping[str, Any], document: Document, place: str) -> Iterator[Schema]:
    """Of ``contains``: at each place that the item may have."""
    least = schema.get("minContains", 1)
    if least == 0 and "maxContains" not in schema:
        return
    if least != 1 or "maxContains" in schema:
        raise SchemaError("contains cannot be enforced more than once", place)
    places = range(min(_PLACES, schema.get("maxItems", _PLACES)))
    yield _of_arrays(
        schema,
        [{"prefixItems": [*[True] * at, item], "minItems": at + 1} for at in places],
    )


def no_others(others: Any, schema: Mapping[str, Any], document: Document, place: str) -> Iterator[Schema]:
    """Of ``unevaluatedItems``."""
    if others is True or "items" in schema:
        return
    if schema.keys() & {"$ref", "allOf", "anyOf", "oneOf", "if", "contains"}:
        raise SchemaError("unevaluatedItems cannot be enforced here", place)
    yield {"prefixItems": schema.get("prefixItems", []), "items": others}


def _told_apart(schema: Mapping[str, Any], document: Document, place: str) -> bool:
    """Whether no two items of a tuple can be the same."""
    items = schema.get("prefixItems", schema.get("items"))
    more = schema.get("items") if "prefixItems" in schema else schema.get("additionalItems")
    few = more is False or schema.get("maxItems", len(items) + 1) <= len(items)
    return few and all(Overlap(document, place).disjoint(one, other) for one, other in combinations(items, 2))


def _of_arrays(schema: Mapping[str, Any], alternatives: list[dict[str, Any]]) -> Schema:
    found: list[dict[str, Any]] = [{"type": "array", **part} for part in alternatives]
    if schema.get("type") != "array":
        found.append({"type": [kind for kind in TYPES if kind != "array"]})
    return {"anyOf": found}
