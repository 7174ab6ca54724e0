"""Values that are written as they are, without quotes: schemas tell which of them are strings."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

from gateway.chat.formats.literals import as_json
from gateway.chat.pieces import CallArguments
from gateway.chat.reader import Reader, Reading


def read_value(reader: Reader, kinds: Collection[str], ends: Sequence[str]) -> Reading[None]:
    """As JSON, the value up to one of ``ends``, which may be of these ``kinds``."""
    if kinds == {"string"}:
        yield CallArguments('"')
        yield from reader.until(ends, within_string)
        yield CallArguments('"')
        return
    value = (yield from reader.text_until(*ends)) or ""
    nothing = "null" in kinds and value.strip() in ("null", "None")
    text = json.dumps(value, ensure_ascii=False) if "string" in kinds and not nothing else as_json(value)
    yield CallArguments(text)


def within_string(text: str) -> CallArguments:
    """A part of a JSON string."""
    return CallArguments(json.dumps(text, ensure_ascii=False)[1:-1])
