"""What a schema is, and how it is told that one cannot be enforced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any] | bool


class SchemaError(ValueError):
    """What cannot be enforced, and where it is asked for."""

    def __init__(self, reason: str, place: str) -> None:
        super().__init__(f"{reason}, at {place}")
        self.reason = reason
        self.place = place


class Work:
    """How much a schema may mean: few words can stand for very many."""

    def __init__(self, most: int) -> None:
        self._left = most

    def step(self, place: str) -> None:
        """Raises SchemaError when it is too much."""
        self._left -= 1
        if self._left < 0:
            raise SchemaError("the schema stands for too much", place)
