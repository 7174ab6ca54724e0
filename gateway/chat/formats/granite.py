"""Granite 3: ``<|tool_call|>[{"name": ..., "arguments": {...}}]``."""

from __future__ import annotations

from typing import Final

from gateway.chat.formats.json_calls import read_marked
from gateway.chat.formats.tool_format import Layout, Schemas, ToolFormat
from gateway.chat.reader import Reader, Reading

_OPEN: Final = "<|tool_call|>"
_PLAIN: Final = "<tool_call>"


def _read(reader: Reader, _: Schemas) -> Reading[None]:
    yield from read_marked(reader, (_OPEN, _PLAIN), "</tool_call>")


GRANITE: Final = ToolFormat(
    read=_read,
    layout=Layout(
        before=f"{_OPEN}[", opening='{"name": "$NAME", "arguments": ', closing="}", between=", ", after="]"
    ),
    marks=(_OPEN, _PLAIN),
)
