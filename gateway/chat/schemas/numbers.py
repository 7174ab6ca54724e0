"""Multiples: those that a grammar cannot have are listed, where they are few."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any, Final

from gateway.chat.schemas.document import Document
from gateway.chat.schemas.schema import Schema
from gateway.chat.schemas.values import LARGEST, TYPES, is_number

COARSE: Final = 1000
"""Beyond so many, a grammar of multiples may be too large."""
_LARGEST: Final = Decimal(LARGEST)
_MOST: Final = 500


def multiples(step: float, schema: Mapping[str, Any], document: Document, place: str) -> Iterator[Schema]:
    """Of ``multipleOf``."""
    exact = Decimal(repr(step))
    found = None if _is_simple(step, exact) else _range(exact, schema)
    if found is None:
        yield {"multipleOf": step}
    else:
        others = [kind for kind in TYPES if kind not in ("integer", "number")]
        yield {"anyOf": [{"type": others}, {"enum": [_number(index * exact) for index in found]}]}


def _range(step: Decimal, schema: Mapping[str, Any]) -> range | None:
    """How many times: all within the limits, if they are few, or those about 0 and next to the only limit."""
    low, high = _limit(schema, "minimum", "exclusiveMinimum"), _limit(schema, "maximum", "exclusiveMaximum")
    least = max(-_LARGEST, low if low is not None else (high or 0) - _MOST * step)
    most = min(_LARGEST, high if high is not None else least + 2 * _MOST * step)
    first, last = (
        (least / step).to_integral_value(ROUND_CEILING),
        (most / step).to_integral_value(ROUND_FLOOR),
    )
    return range(int(first), int(last) + 1) if 0 <= last - first <= 2 * _MOST else None


def _limit(schema: Mapping[str, Any], *keys: str) -> Decimal | None:
    return next((Decimal(repr(schema[key])) for key in keys if is_number(schema.get(key))), None)


def _is_simple(step: float, exact: Decimal) -> bool:
    """Whether a grammar has it: of few digits, which ten times a float must lead to."""
    digits = -int(exact.as_tuple().exponent)
    shifted = float(step)
    for _ in range(digits):
        shifted *= 10
    return shifted.is_integer() and shifted <= COARSE


def _number(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)
