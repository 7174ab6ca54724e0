"""DeepSeek V3.2 and V4: a ``<｜DSML｜invoke name="NAME">`` for each call, in it for each argument a
``<｜DSML｜parameter name="KEY" string="true">``; ``string`` tells whether the value is text or JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Final

from gateway.chat.formats.json_calls import give_back, read_named_call
from gateway.chat.formats.plain_values import read_value
from gateway.chat.formats.tool_format import Layout, Parameters, Schemas, ToolFormat
from gateway.chat.pieces import CallArguments, CallEnd, Content
from gateway.chat.reader import Reader, Reading

_TOKEN: Final = "｜DSML｜"
_V32: Final = f"{_TOKEN}function_calls>"
_V4: Final = f"{_TOKEN}tool_calls>"
_INVOKE: Final = f'<{_TOKEN}invoke name="'
_INVOKE_END: Final = f"</{_TOKEN}invoke>"
_PARAMETER: Final = f'<{_TOKEN}parameter name="'
_PARAMETER_END: Final = f"</{_TOKEN}parameter>"
_KIND: Final = '" string="'
_HEAD_END: Final = '">'


def _read(reader: Reader, _: Schemas) -> Reading[None]:
    while mark := (yield from reader.until((f"<{_V32}", f"<{_V4}"), Content, trim=True)):
        reader.mark()
        called = yield from _read_call(reader)
        if not called:
            yield from give_back(reader, mark)
            continue
        while called:
            called = yield from _read_call(reader)
        yield from reader.follows(f"</{_V32}", f"</{_V4}")
        yield from reader.skip_space()


def _read_call(reader: Reader) -> Reading[bool]:
    if not (yield from reader.follows(_INVOKE)):
        return False
    name = yield from reader.text_until(_HEAD_END)
    if not name:
        return False
    yield from read_named_call(reader, name, _INVOKE_END, _read_parameters(reader))
    return True


def _read_parameters(reader: Reader) -> Reading[None]:
    separator = "{"
    while mark := (yield from reader.follows(_PARAMETER, _INVOKE_END)):
        if mark == _INVOKE_END:
            yield CallArguments("{}" if separator == "{" else "}")
            yield CallEnd()
            return
        key = yield from reader.text_until(_KIND)
        kind = yield from reader.text_until(_HEAD_END)
        if key is None or kind is None:
            return
        yield CallArguments(f"{separator}{json.dumps(key, ensure_ascii=False)}: ")
        separator = ", "
        yield from read_value(reader, {"string"} if kind == "true" else set(), (_PARAMETER_END,))


def _marks(kind: str) -> tuple[str, str]:
    return f"{_PARAMETER}$KEY{_KIND}{kind}{_HEAD_END}", f"{_PARAMETER_END}\n"


_LAYOUT: Final = Layout(
    before=f"<{_V32}\n",
    opening=f"{_INVOKE}$NAME{_HEAD_END}\n",
    closing=f"{_INVOKE_END}\n",
    between="",
    after=f"</{_V32}",
    parameters=Parameters(text=_marks("true"), json=_marks("false")),
)
DEEPSEEK_V32: Final = ToolFormat(read=_read, layout=_LAYOUT, marks=(_TOKEN,))
DEEPSEEK_V4: Final = replace(DEEPSEEK_V32, layout=replace(_LAYOUT, before=f"<{_V4}\n", after=f"</{_V4}"))
