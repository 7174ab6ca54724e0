"""Limits of numbers and names where a schema gives none, and what kind of value it means."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import inf
from typing import Any, Final

from gateway.chat.schemas.numbers import COARSE
from gateway.chat.schemas.patterns import ANY
from gateway.chat.schemas.values import LARGEST

NAME: Final = rf'^[^\s"\\:,{{}}\[\]\x{{0}}-\x{{1F}}]{ANY}{{0,63}}$'
"""It begins like none of JSON's own marks, or tokens such as ``": "`` would be whole names, and come often:
that names are not the same grammars cannot ensure."""
_WORD: Final = 256
"""Characters of a text whose pattern gives no number, where it is not one for prose."""
_NO_NUMBER: Final = re.compile(r"[*+]|\{\d+,\}")
_OF_PROSE: Final = re.compile(r"\[\^|\\[SWDPp]|\\x\{0\}|[ |]")
_AROUND: Final = f"{ANY}{{0,32}}"
_KINDS: Final[Mapping[str, str]] = {
    "minimum maximum exclusiveMinimum exclusiveMaximum multipleOf": "number",
    "minLength maxLength pattern": "string",
    "items prefixItems minItems maxItems": "array",
    "properties patternProperties additionalProperties required minProperties maxProperties": "object",
}
"""What kind of value keywords speak of."""
_LOWS: Final = ("minimum", "exclusiveMinimum")
_HIGHS: Final = ("maximum", "exclusiveMaximum")
DECIMALS: Final = 1e-9
_LARGEST_FRACTION: Final = 10**9
"""Of numbers that must be multiples of some: beyond it, readers would round them."""
_NARROW: Final = 1e-6
"""A range that so few decimals may leave nothing of."""


def kinds_spoken_of(places: Sequence[Mapping[str, Any]]) -> list[str]:
    """And not named."""
    if any(place.keys() & {"type", "enum", "const"} for place in places):
        return []
    said = {key for place in places for key in place}
    return [kind for keywords, kind in _KINDS.items() if not said.isdisjoint(keywords.split())]


def types_of(place: Mapping[str, Any]) -> Sequence[str]:
    kinds: str | list[str] = place.get("type", [])
    return [kinds] if isinstance(kinds, str) else kinds


def number_limits(
    places: Sequence[Mapping[str, Any]], always: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """What a number lacks. ``always``: the places that are of no alternative."""
    said = {key for place in places for key in place}
    kinds = {kind for place in places for kind in types_of(place)}
    coarse = any(place.get("multipleOf", 0) > COARSE for place in places)
    if not kinds & {"number", "integer"} or said & {"enum", "const"} or coarse:
        return {}
    low = max((place[key] for place in always for key in _LOWS if key in place), default=-inf)
    high = min((place[key] for place in always for key in _HIGHS if key in place), default=inf)
    fractions = any(place.get("multipleOf", 1) % 1 for place in places)
    largest = _LARGEST_FRACTION if fractions else LARGEST
    limits: dict[str, float] = {}
    if low < -largest < high:
        limits["minimum"] = -largest
    if high > largest > low:
        limits["maximum"] = largest
    if "multipleOf" not in said and "number" in kinds and high - low > _NARROW:
        limits["multipleOf"] = DECIMALS
    return limits


def limited_name(pattern: str) -> str:
    """Where it says nothing of the beginning or end, there may be only some characters."""
    if "|" in pattern:
        return pattern
    before = "" if pattern.startswith("^") else f"^{_AROUND}"
    after = "" if pattern.endswith("$") else f"{_AROUND}$"
    return f"{before}{pattern}{after}"


def text_limits(always: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """``always``: the places that are of no alternative."""
    patterns = [place["pattern"] for place in always if "pattern" in place]
    if any(place.keys() & {"minLength", "maxLength"} for place in always):
        return {}
    endless = [
        pattern.startswith("^")
        and pattern.endswith("$")
        and _NO_NUMBER.search(pattern)
        and not _OF_PROSE.search(pattern)
        for pattern in patterns
    ]
    return {"maxLength": _WORD} if patterns and all(endless) else {}
