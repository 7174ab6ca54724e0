"""Objects without names but those that are said, or with names of some length."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from gateway.chat.schemas.limits import NAME, types_of
from gateway.chat.schemas.schema import SchemaError

Place = Mapping[str, Any]
"""One of those where a value is spoken of."""
_OPEN: Final = ("additionalProperties", "patternProperties")


def closed(schema: dict[str, Any], places: Sequence[Place], *, wanted: bool = False) -> dict[str, Any]:
    """``wanted``: it is asked for, whatever is said."""
    others = [place["additionalProperties"] for place in places if "additionalProperties" in place]
    patterns = any("patternProperties" in place for place in places)
    names = dict.fromkeys(names_of(places), True)
    least = max(place.get("minProperties", 0) for place in places)
    if not others and not patterns and (wanted or (_names_some(places) and least <= len(names))):
        properties = {**names, **schema.get("properties", {})}
        return {**schema, "properties": properties, "additionalProperties": False}
    if patterns or False in others or not (others or any("object" in types_of(place) for place in places)):
        return schema
    named = {"properties": names, "patternProperties": {NAME: True}, "additionalProperties": False}
    return {**schema, "allOf": [*schema.get("allOf", []), named]}


def asks_to_close(places: Sequence[Place], always: Sequence[Place]) -> bool:
    """Whether there must be no properties but those that are said. ``always``: the places that are of no
    alternative. Raises SchemaError when what is said is not the same for all values."""
    if not any(place.get("unevaluatedProperties") is False for place in places):
        return False
    told = [[key for place in some for key in place if key in _OPEN] for some in (places, always)]
    if {*names_of(places)} != {*names_of(always)} or told[0] != told[1]:
        raise SchemaError("unevaluatedProperties cannot be enforced beside alternatives", "#")
    return True


def names_of(places: Sequence[Place] | Iterator[Place]) -> Iterator[str]:
    for place in places:
        yield from place.get("properties", {})
        yield from place.get("required", [])


def _names_some(places: Sequence[Place]) -> bool:
    """Rather than only forbid some."""
    said = [place["properties"].values() for place in places if "properties" in place]
    return any(not schemas or any(schema is not False for schema in schemas) for schemas in said)
