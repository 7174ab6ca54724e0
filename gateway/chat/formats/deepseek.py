"""DeepSeek's calls, between marks of its own: V3 and R1 put arguments into a code block, V3.1 does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from gateway.chat.formats.json_calls import give_back, read_arguments
from gateway.chat.formats.tool_format import Layout, Schemas, ToolFormat
from gateway.chat.pieces import CallEnd, CallStart, Content
from gateway.chat.reader import Reader, Reading

_CALLS: Final = "<｜tool▁calls▁begin｜>"
_CALLS_END: Final = "<｜tool▁calls▁end｜>"
_CALL: Final = "<｜tool▁call▁begin｜>"
_CALL_END: Final = "<｜tool▁call▁end｜>"
_SEPARATOR: Final = "<｜tool▁sep｜>"
_BLOCK: Final = "```json"


def _read(reader: Reader, _: Schemas) -> Reading[None]:
    while mark := (yield from reader.until((_CALLS, _CALL), Content, trim=True)):
        more = mark == _CALL or (yield from reader.follows(_CALL))
        while more:
            yield from _read_call(reader)
            more = yield from reader.follows(_CALL)
        yield from reader.follows(_CALLS_END)
        yield from reader.skip_space()


def _read_call(reader: Reader) -> Reading[None]:
    reader.mark()
    name = yield from reader.text_until(_SEPARATOR)
    if name == "function":
        name = yield from reader.text_until("\n")
    if not name or not name.strip():
        yield from give_back(reader, _CALL)
        return
    yield CallStart(name.strip())
    yield from reader.follows(_BLOCK)
    if (yield from read_arguments(reader)):
        yield CallEnd()
    yield from reader.follows("```")
    yield from reader.follows(_CALL_END)


DEEPSEEK_V31: Final = ToolFormat(
    read=_read,
    layout=Layout(
        before=_CALLS,
        opening=f"{_CALL}$NAME{_SEPARATOR}",
        closing=_CALL_END,
        between="",
        after=_CALLS_END,
    ),
    marks=(_CALLS, _CALLS_END, _CALL, _CALL_END, _SEPARATOR),
)
DEEPSEEK_V3: Final = replace(
    DEEPSEEK_V31,
    layout=Layout(
        before=_CALLS,
        opening=f"{_CALL}function{_SEPARATOR}$NAME\n{_BLOCK}\n",
        closing=f"\n```{_CALL_END}",
        between="\n",
        after=_CALLS_END,
    ),
)
