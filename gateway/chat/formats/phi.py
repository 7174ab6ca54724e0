"""Phi-4-mini: ``<|tool_call|>[{"name": ..., "arguments": {...}}]<|/tool_call|>``, or after ``functools``, as
FireFunction has it."""

from __future__ import annotations

from typing import Final

from gateway.chat.formats.json_calls import read_marked
from gateway.chat.formats.tool_format import Layout, Schemas, ToolFormat
from gateway.chat.reader import Reader, Reading

_OPEN: Final = "<|tool_call|>"
_CLOSE: Final = "<|/tool_call|>"
_WORD: Final = "functools"


def _read(reader: Reader, _: Schemas) -> Reading[None]:
    yield from read_marked(reader, (_OPEN, _WORD), _CLOSE)


def _format(opening: str, closing: str) -> ToolFormat:
    return ToolFormat(
        read=_read,
        layout=Layout(
            before=f"{opening}[",
            opening='{"name": "$NAME", "arguments": ',
            closing="}",
            between=", ",
            after=f"]{closing}",
        ),
        marks=(_OPEN, _CLOSE),
    )


PHI: Final = _format(_OPEN, _CLOSE)
FIREFUNCTION: Final = _format(_WORD, "")
