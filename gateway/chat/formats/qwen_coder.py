"""``<tool_call><function=NAME><parameter=KEY>value</parameter></function></tool_call>``: Qwen3-Coder.

Values are written as they are, without quotes; the schemas tell which of them are strings. Calls in JSON, as
in ``hermes``, are read too, and are what such a model writes when it must call.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from gateway.chat.formats.hermes import CLOSE, LAYOUT, OPEN
from gateway.chat.formats.json_calls import give_back, read_calls
from gateway.chat.formats.literals import as_json
from gateway.chat.formats.tool_format import Schemas, ToolFormat
from gateway.chat.pieces import CallArguments, CallEnd, CallStart, Content
from gateway.chat.reader import Reader, Reading

_FUNCTION: Final = "<function="
_FUNCTION_END: Final = "</function>"
_PARAMETER: Final = "<parameter="
_PARAMETER_END: Final = "</parameter>"


def _read(reader: Reader, schemas: Schemas) -> Reading[None]:
    while mark := (yield from reader.until((OPEN, _FUNCTION), Content, trim=True)):
        reader.mark()
        if mark == _FUNCTION or (yield from reader.follows(_FUNCTION)):
            called = yield from _read_function(reader, schemas, any_name=mark == OPEN)
        else:
            called = yield from read_calls(reader)
        if not called:
            yield from give_back(reader, mark)
            continue
        yield from reader.follows(CLOSE)
        yield from reader.skip_space()


def _read_function(reader: Reader, schemas: Schemas, *, any_name: bool) -> Reading[bool]:
    """Without ``any_name`` only of a function that there is. False, and nothing given out, for another."""
    name = ((yield from reader.text_until(">")) or "").strip()
    if not name or not (any_name or name in schemas):
        return False
    yield CallStart(name)
    properties = schemas.get(name, {}).get("properties") or {}
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
        yield from _read_value(reader, _kinds(properties.get(key)))
        separator = ", "
    return True


def _kinds(schema: Any) -> set[str]:
    """The types that a value may have, as far as its schema says."""
    if not isinstance(schema, Mapping):
        return set()
    told = schema.get("type")
    kinds = set(told) if isinstance(told, list) else {told} if isinstance(told, str) else set()
    for parts in (schema.get("anyOf"), schema.get("oneOf")):
        kinds |= {kind for part in (parts if isinstance(parts, list) else ()) for kind in _kinds(part)}
    values = schema.get("enum")
    if not kinds and isinstance(values, list) and all(isinstance(value, str) for value in values):
        kinds = {"string"}
    return kinds


def _read_value(reader: Reader, kinds: set[str]) -> Reading[None]:
    yield from reader.starts("\n")
    ends = (f"\n{_PARAMETER_END}", _PARAMETER_END)
    if kinds != {"string"}:
        value = (yield from reader.text_until(*ends)) or ""
        nothing = "null" in kinds and value.strip() in ("null", "None")
        text = json.dumps(value, ensure_ascii=False) if "string" in kinds and not nothing else as_json(value)
        yield CallArguments(text)
        return
    yield CallArguments('"')
    yield from reader.until(ends, lambda text: CallArguments(json.dumps(text, ensure_ascii=False)[1:-1]))
    yield CallArguments('"')


QWEN_CODER: Final = ToolFormat(read=_read, layout=LAYOUT, marks=(OPEN, CLOSE))
