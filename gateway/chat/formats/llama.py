"""Llama 3's ``{"name": ..., "parameters": {...}}`` and ``[f(a=1), g(b="x")]`` of Llama 3.2 and 4: an answer
that begins so, or what follows ``<|python_tag|>``."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Final

from gateway.chat.formats.json_calls import read_call
from gateway.chat.formats.literals import as_json
from gateway.chat.formats.tool_format import Layout, Schemas, ToolFormat
from gateway.chat.pieces import CallArguments, CallEnd, CallStart, Content
from gateway.chat.reader import Reader, Reading

_TAGS: Final = ("<|python_tag|>", "<|python_start|>")
_END: Final = "<|python_end|>"
_NAME: Final = re.compile(r"[A-Za-z_][\w.-]{0,127}")


def _read(reader: Reader, schemas: Schemas) -> Reading[None]:
    tag, names = "", schemas or None
    while True:
        reader.mark()
        if not (yield from _read_calls(reader, names)) and (text := tag + reader.taken):
            yield Content(text)
        found = yield from reader.until(_TAGS, Content, trim=True)
        if found is None:
            return
        tag = reader.trimmed + found


def _read_calls(reader: Reader, names: Collection[str] | None) -> Reading[bool]:
    """The first only of a function that there is: much else begins as they do."""
    yield from reader.skip_space()
    match (yield from reader.peek()):
        case "{":
            called = yield from read_call(reader, names)
            while called and (yield from reader.follows(";", ",")):
                yield from read_call(reader)
        case "[":
            called = yield from _read_list(reader, names)
        case _:
            return False
    if called:
        yield from reader.follows(_END)
        yield from reader.skip_space()
    return called


def _read_list(reader: Reader, names: Collection[str] | None) -> Reading[bool]:
    yield from reader.starts("[")
    yield from reader.skip_space()
    if (yield from reader.peek()) == "{":
        called = yield from read_call(reader, names)
        while called and (yield from reader.follows(",")):
            yield from read_call(reader)
    else:
        called = yield from _read_python_call(reader, names)
        while called and (yield from reader.follows(",")):
            yield from _read_python_call(reader, None)
    if called:
        yield from reader.follows("]")
    return called


def _read_python_call(reader: Reader, names: Collection[str] | None) -> Reading[bool]:
    yield from reader.skip_space()
    name = yield from reader.matching(_NAME)
    if not name or (names is not None and name not in names) or not (yield from reader.starts("(")):
        return False
    yield CallStart(name)
    separator = "{"
    while not (yield from reader.follows(")")):
        key = yield from reader.matching(_NAME)
        if not key or not (yield from reader.follows("=")):
            return True
        yield from reader.skip_space()
        value = yield from reader.json_value(quotes="\"'")
        if value is None:
            return True
        yield CallArguments(f"{separator}{json.dumps(key)}: {as_json(value)}")
        separator = ", "
        yield from reader.follows(",")
    yield CallArguments("{}" if separator == "{" else "}")
    yield CallEnd()
    return True


LLAMA: Final = ToolFormat(
    read=_read,
    layout=Layout(opening='{"name": "$NAME", "parameters": ', closing="}"),
    marks=(*_TAGS, _END),
)
