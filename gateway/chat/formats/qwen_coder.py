"""``<tool_call><function=NAME><parameter=KEY>value</parameter></function></tool_call>``: Qwen3-Coder, and
Seed-OSS with marks of its own.

Values are written as they are, without quotes; the schemas tell which of them are strings. Arguments in JSON,
``<function=NAME>{...}</function>``, are read too, and calls as in ``hermes``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from gateway.chat.formats.hermes import CLOSE, OPEN
from gateway.chat.formats.json_calls import give_back, read_calls, read_named_call
from gateway.chat.formats.plain_values import read_value
from gateway.chat.formats.tool_format import Layout, Parameters, Schemas, ToolFormat
from gateway.chat.pieces import CallArguments, CallEnd, Content
from gateway.chat.reader import Reader, Reading
from gateway.chat.schemas.kinds import value_kinds

_SEED_OPEN: Final = "<seed:tool_call>"
_SEED_CLOSE: Final = "</seed:tool_call>"
_FUNCTION: Final = "<function="
_FUNCTION_END: Final = "</function>"
_PARAMETER: Final = "<parameter="
_PARAMETER_END: Final = "</parameter>"
_VALUE_ENDS: Final = (f"\n{_PARAMETER_END}", _PARAMETER_END)


def _read(reader: Reader, schemas: Schemas) -> Reading[None]:
    while mark := (yield from reader.until((OPEN, _SEED_OPEN, _FUNCTION), Content, trim=True)):
        reader.mark()
        if mark == _FUNCTION or (yield from reader.follows(_FUNCTION)):
            called = yield from _read_function(reader, schemas, any_name=mark != _FUNCTION)
        else:
            called = yield from read_calls(reader)
        if not called:
            yield from give_back(reader, mark)
            continue
        yield from reader.follows(CLOSE, _SEED_CLOSE)
        yield from reader.skip_space()


def _read_function(reader: Reader, schemas: Schemas, *, any_name: bool) -> Reading[bool]:
    """Without ``any_name`` only of a function that there is. False, and nothing given out, for another."""
    name = ((yield from reader.text_until(">")) or "").strip()
    if not name or not (any_name or name in schemas):
        return False
    properties = schemas.get(name, {}).get("properties") or {}
    yield from read_named_call(reader, name, _FUNCTION_END, _read_parameters(reader, properties))
    return True


def _read_parameters(reader: Reader, properties: Mapping[str, Any]) -> Reading[None]:
    separator = "{"
    while mark := (yield from reader.follows(_PARAMETER, _FUNCTION_END)):
        if mark == _FUNCTION_END:
            yield CallArguments("{}" if separator == "{" else "}")
            yield CallEnd()
            break
        key = yield from reader.text_until(">")
        if key is None:
            break
        yield CallArguments(f"{separator}{json.dumps(key, ensure_ascii=False)}: ")
        yield from reader.starts("\n")
        yield from read_value(reader, value_kinds(properties.get(key)), _VALUE_ENDS)
        separator = ", "


def _format(opening: str, closing: str, *, around: str) -> ToolFormat:
    """``around``: on both sides of a value."""
    marks = (f"{_PARAMETER}$KEY>{around}", f"{around}{_PARAMETER_END}\n")
    return ToolFormat(
        read=_read,
        layout=Layout(
            opening=f"{opening}\n{_FUNCTION}$NAME>\n",
            closing=f"{_FUNCTION_END}\n{closing}",
            between="\n",
            parameters=Parameters(text=marks, json=marks),
        ),
        marks=(opening, closing),
    )


QWEN_CODER: Final = _format(OPEN, CLOSE, around="\n")
SEED_OSS: Final = _format(_SEED_OPEN, _SEED_CLOSE, around="")
FUNCTIONARY: Final = ToolFormat(
    read=_read, layout=Layout(opening=f"{_FUNCTION}$NAME>", closing=_FUNCTION_END, between="")
)
