"""gpt-oss: messages on channels, ``<|channel|>final<|message|>...``. Reasoning is on the channel
``analysis``, calls are messages to ``functions.NAME``, all else is content."""

from __future__ import annotations

import re
from typing import Final

from gateway.chat.formats.json_calls import give_back, read_arguments
from gateway.chat.formats.tool_format import Layout, Schemas, ToolFormat
from gateway.chat.pieces import CallArguments, CallEnd, CallStart, Content, Reasoning
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
        yield from _read_message(reader, recipient)
    while mark := (yield from reader.until((_CHANNEL, _START, *_ENDS), Content)):
        if mark not in _ENDS:
            yield from _read_message(reader, mark)


def _read_message(reader: Reader, begun: str) -> Reading[None]:
    """``begun``: what has been read of its header."""
    reader.mark()
    rest = yield from reader.text_until(_MESSAGE)
    if rest is None:
        yield from give_back(reader, begun)
        return
    header = begun + rest
    if recipient := _RECIPIENT.search(header):
        yield from _read_call(reader, recipient[1])
        return
    channel = header.partition(_CHANNEL)[2]
    wrap = Reasoning if channel.strip().startswith("analysis") else Content
    yield from reader.until(_ENDS, wrap)


def _read_call(reader: Reader, name: str) -> Reading[None]:
    """Its arguments are code now and then, of which nothing must be lost."""
    yield CallStart(name)
    yield from reader.skip_space()
    if (yield from reader.peek()) not in ("{", '"'):
        yield from reader.until(_ENDS, CallArguments)
    elif (yield from read_arguments(reader)):
        yield CallEnd()


HARMONY: Final = ToolFormat(
    read=_read,
    thinking=Thinking(f"{_CHANNEL}analysis{_MESSAGE}", f"{_ENDS[0]}{_START}assistant"),
    content=f"{_CHANNEL}final{_MESSAGE}",
    layout=Layout(opening=f"{_CHANNEL}commentary to=functions.$NAME {_CONSTRAIN}json{_MESSAGE}"),
    marks=(_CHANNEL, _MESSAGE, _START, _CONSTRAIN, *_ENDS),
)
