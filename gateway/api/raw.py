"""Parts of an answer, encoded already: what is the same in several places is encoded once, and what is large
piece by piece, since one call of the encoder lets no other thread run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar, cast

import msgspec

T = TypeVar("T")


def encoded(part: T) -> T:
    """To be put where ``part`` would be, which nothing but the encoder looks at any more."""
    return cast("T", msgspec.Raw(msgspec.json.encode(part)))


def encoded_each(parts: Iterable[T]) -> list[T]:
    return [encoded(part) for part in parts]
