"""``<tool_call>{"name": ..., "arguments": {...}}</tool_call>``: Hermes, Qwen, Granite 4 and many others."""

from __future__ import annotations

from typing import Final

from gateway.chat.formats.json_calls import read_marked
from gateway.chat.formats.tool_format import Layout, Schemas, ToolFormat
from gateway.chat.reader import Reader, Reading

OPEN: Final = "<tool_call>"
CLOSE: Final = "</tool_call>"

LAYOUT: Final = Layout(
    opening=f'{OPEN}\n{{"name": "$NAME", "arguments": ', closing=f"}}\n{CLOSE}", between="\n"
)


def _read(reader: Reader, _: Schemas) -> Reading[None]:
    yield from read_marked(reader, (OPEN,), CLOSE)


HERMES: Final = ToolFormat(read=_read, layout=LAYOUT, marks=(OPEN, CLOSE))
