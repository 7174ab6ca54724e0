"""gpt-oss: messages on channels, ``<|channel|>final<|message|>...``. Reasoning is on the channel
``analysis``, calls are messages to ``functions.NAME``, all else is content."""

from __future__ import annotations

import re
from typing import Final

from gateway.chat.formats.json_calls import read_arguments
from gateway.chat.formats.tool_format import Layout, Schemas, ToolFormat
from gateway.chat.pieces import CallEnd, CallStart, Content, Reasoning
from gateway.chat.reader import Reader, Reading
from gateway.chat.thinking import Thinking

_CHANNEL: Final = "<|channel|>"
_MESSAGE: Final = "<|message|>"
_START: Final = "<|start|>"
_CONSTRAIN: Final = "<|constrain|>"
_ENDS: Final = ("<|end|>", "<|call|>", "<|return|>")
_RECIPIENT_FIRST: Final = " to="
_RECIPIENT: Final = re.compile(r"\bto=functions\.([\w.:/-]+)")


def _read(reader: Reader, _: Schemas) -> Reading[None]:
    if recipient := (yield from reader.starts(_RECIPIENT_FIRST)):  # the template has begun the header
        header = yield from reader.text_until(_MESSAGE)
        yield from _read_message(reader, f"{recipient}{header or ''}")
    while mark := (yield from reader.until((_CHANNEL, _START, *_ENDS), Content)):
        if mark not in _ENDS:
            header = yield from reader.text_until(_MESSAGE)
            if header is None:
                return
            yield from _read_message(reader, mark + header)


def _read_message(reader: Reader, header: str) -> Reading[None]:
    if recipient := _RECIPIENT.search(header):
        yield CallStart(recipient[1])
        if (yield from read_arguments(reader)):
            yield CallEnd()
        return
    channel = header.partition(_CHANNEL)[2]
    wrap = Reasoning if channel.strip().startswith("analysis") else Content
    yield from reader.until(_ENDS, wrap)


HARMONY: Final = ToolFormat(
    read=_read,
    thinking=Thinking(f"{_CHANNEL}analysis{_MESSAGE}", f"{_ENDS[0]}{_START}assistant"),
    content=f"{_CHANNEL}final{_MESSAGE}",
    layout=Layout(opening=f"{_CHANNEL}commentary to=functions.$NAME {_CONSTRAIN}json{_MESSAGE}"),
    marks=(_CHANNEL, _MESSAGE, _START, _CONSTRAIN, *_ENDS),
)
