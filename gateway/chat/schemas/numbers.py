"""Multiples: those that a grammar cannot have are listed, where they are few."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any, Final

from gateway.chat.schemas.document import Document
from gateway.chat.schemas.schema import Schema
from gateway.chat.schemas.values import TYPES, is_number

COARSE: Final = 1000
"""Beyond so many, a grammar of multiples may be too large."""
_MOST: Final = 1000


def multiples(step: float, schema: Mapping[str, Any], document: Document, place: str) -> Iterator[Schema]:
    """Of ``multipleOf``."""
    exact = Decimal(repr(step))
    low, high = schema.get("minimum"), schema.get("maximum")
    if not _is_simple(step, exact) and is_number(low) and is_number(high):
        first = int((Decimal(repr(low)) / exact).to_integral_value(ROUND_CEILING))
        last = int((Decimal(repr(high)) / exact).to_integral_value(ROUND_FLOOR))
        if 0 <= last - first < _MOST:
            values = [_number(index * exact) for index in range(first, last + 1)]
            others = [kind for kind in TYPES if kind not in ("integer", "number")]
            yield {"anyOf": [{"type": others}, {"enum": values}]}
            return
    yield {"multipleOf": step}


def _is_simple(step: float, exact: Decimal) -> bool:
    """Whether a grammar has it: of few digits, which ten times a float must lead to."""
    digits = -int(exact.as_tuple().exponent)
    shifted = float(step)
    for _ in range(digits):
        shifted *= 10
    return shifted.is_integer() and shifted <= COARSE


def _number(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)
