"""Calls as a JSON list, ``[{"name": ..., "arguments": {...}}]``, after a mark and perhaps before another."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Final

from gateway.chat.formats.json_calls import read_marked
from gateway.chat.formats.tool_format import Layout, Schemas, ToolFormat
from gateway.chat.reader import Reader, Reading


def _read(reader: Reader, _: Schemas, *, openings: tuple[str, ...], closing: str) -> Reading[None]:
    yield from read_marked(reader, openings, closing)


def _format(opening: str, closing: str, *, also: str = "", end: str | None = None) -> ToolFormat:
    """``also``: what stands for the opening mark now and then. ``end``: what there is of the closing one."""
    openings = tuple(filter(None, (opening, also)))
    return ToolFormat(
        read=partial(_read, openings=openings, closing=closing),
        layout=Layout(
            before=f"{opening}[",
            opening='{"name": "$NAME", "arguments": ',
            closing="}",
            between=", ",
            after=f"]{closing if end is None else end}",
        ),
        marks=tuple(filter(None, (*openings, closing))),
    )


_GRANITE: Final = _format("<|tool_call|>", "</tool_call>", also="<tool_call>", end="")
GRANITE: Final = replace(_GRANITE, layout=replace(_GRANITE.layout, tool_role=True))
PHI: Final = _format("<|tool_call|>", "<|/tool_call|>", also="functools")
FIREFUNCTION: Final = _format("functools", "")
NEMOTRON: Final = _format("<TOOLCALL>", "</TOOLCALL>")
APRIEL: Final = _format("<tool_calls>", "</tool_calls>")
