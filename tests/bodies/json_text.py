"""JSON as it is sent, which need not be valid."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Json:
    """Text that stands for a value, valid or not."""

    text: str

    def __repr__(self) -> str:
        return f"Json({self.text[:40]!r} of {len(self.text)})"


class Pairs(list[tuple[str, Any]]):
    """An object, which may have a key twice."""


def encode(value: Any) -> str:
    if isinstance(value, Json):
        return value.text
    if isinstance(value, dict):
        value = Pairs(value.items())
    if isinstance(value, Pairs):
        return "{" + ",".join(f"{json.dumps(key)}:{encode(item)}" for key, item in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(encode, value)) + "]"
    return json.dumps(value)
