"""Mistral: ``[TOOL_CALLS][{"name": ..., "arguments": {...}}]``, later ``[TOOL_CALLS]NAME[ARGS]{...}``."""

from __future__ import annotations

import re
import secrets
import string
from dataclasses import replace
from typing import Final

from gateway.chat.formats.json_calls import give_back, read_arguments, read_calls
from gateway.chat.formats.tool_format import Layout, Schemas, ToolFormat
from gateway.chat.pieces import CallEnd, CallStart, Content
from gateway.chat.reader import Reader, Reading

_CALLS: Final = "[TOOL_CALLS]"
_ID: Final = "[CALL_ID]"
_ARGUMENTS: Final = "[ARGS]"
_WORD: Final = re.compile(r"[\w.:/-]{0,128}")
_ALPHABET: Final = string.ascii_letters + string.digits


def _read(reader: Reader, _: Schemas) -> Reading[None]:
    while (yield from reader.until((_CALLS,), Content, trim=True)):
        reader.mark()
        yield from reader.skip_space()
        in_json = (yield from reader.peek()) in ("[", "{")
        if not (yield from (read_calls(reader) if in_json else _read_named(reader))):
            yield from give_back(reader, _CALLS)
            continue
        yield from reader.skip_space()


def _read_named(reader: Reader) -> Reading[bool]:
    name = yield from reader.matching(_WORD)
    if not name:
        return False
    if (yield from reader.starts(_ID)):
        yield from reader.matching(_WORD)
    if not (yield from reader.starts(_ARGUMENTS)) and (yield from reader.peek()) != "{":
        return False
    yield CallStart(name)
    if (yield from read_arguments(reader)):
        yield CallEnd()
    return True


def _call_id() -> str:
    """Their templates refuse any other than nine letters and digits."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(9))


MISTRAL: Final = ToolFormat(
    read=_read,
    layout=Layout(
        before=f"{_CALLS}[", opening='{"name": "$NAME", "arguments": ', closing="}", between=", ", after="]"
    ),
    marks=(_CALLS, _ID, _ARGUMENTS),
    call_id=_call_id,
)
MISTRAL_ARGS: Final = replace(MISTRAL, layout=Layout(opening=f"{_CALLS}$NAME{_ARGUMENTS}", between=""))
