"""``<tool_call>NAME<arg_key>KEY</arg_key><arg_value>value</arg_value></tool_call>``: GLM since 4.5."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from gateway.chat.formats.hermes import CLOSE, OPEN
from gateway.chat.formats.json_calls import give_back, read_arguments
from gateway.chat.formats.plain_values import read_value
from gateway.chat.formats.tool_format import Layout, Parameters, Schemas, ToolFormat
from gateway.chat.pieces import CallArguments, CallEnd, CallStart, Content
from gateway.chat.reader import Reader, Reading
from gateway.chat.schemas.kinds import value_kinds

_NAME: Final = re.compile(r"[\w.:/-]{0,128}")
_KEY: Final = "<arg_key>"
_KEY_END: Final = "</arg_key>"
_VALUE: Final = "<arg_value>"
_VALUE_END: Final = "</arg_value>"


def _read(reader: Reader, schemas: Schemas) -> Reading[None]:
    while (yield from reader.until((OPEN,), Content, trim=True)):
        reader.mark()
        if not (yield from _read_call(reader, schemas)):
            yield from give_back(reader, OPEN)
            continue
        yield from reader.skip_space()


def _read_call(reader: Reader, schemas: Schemas) -> Reading[bool]:
    """False, and nothing given out, for what is none."""
    yield from reader.skip_space()
    name = yield from reader.matching(_NAME)
    mark = yield from reader.follows(_KEY, CLOSE)
    if name and mark:
        yield CallStart(name)
        yield from _read_arguments(reader, mark, schemas.get(name, {}).get("properties") or {})
        return True
    if name not in schemas or (yield from reader.peek()) != "{":
        return False
    yield CallStart(name)
    if (yield from read_arguments(reader)):
        yield CallEnd()
    yield from reader.follows(CLOSE)
    return True


def _read_arguments(reader: Reader, mark: str | None, properties: Mapping[str, Any]) -> Reading[None]:
    """``mark``: the first."""
    separator = "{"
    while mark == _KEY:
        key = yield from reader.text_until(_KEY_END)
        if key is None or not (yield from reader.follows(_VALUE)):
            return
        yield CallArguments(f"{separator}{json.dumps(key, ensure_ascii=False)}: ")
        yield from read_value(reader, value_kinds(properties.get(key)), (_VALUE_END,))
        separator = ", "
        mark = yield from reader.follows(_KEY, CLOSE)
    if mark == CLOSE:
        yield CallArguments("{}" if separator == "{" else "}")
        yield CallEnd()


_MARKS: Final = (f"{_KEY}$KEY{_KEY_END}\n{_VALUE}", f"{_VALUE_END}\n")
GLM: Final = ToolFormat(
    read=_read,
    layout=Layout(
        opening=f"{OPEN}$NAME\n",
        closing=CLOSE,
        between="\n",
        parameters=Parameters(text=_MARKS, json=_MARKS),
    ),
    marks=(OPEN, CLOSE, _KEY, _KEY_END, _VALUE, _VALUE_END),
)
