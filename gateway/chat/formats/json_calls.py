"""Calls written as JSON objects, ``{"name": ..., "arguments": {...}}``: what most formats have between their
marks."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any, Final

from gateway.chat.pieces import CallArguments, CallEnd, CallStart, Content
from gateway.chat.reader import Reader, Reading

_NAMES: Final = ("name",)
_ARGUMENTS: Final = ("arguments", "parameters", "args")
_OTHERS: Final = ("type", "id", "call_id")


def read_call(reader: Reader, names: Collection[str] | None = None) -> Reading[bool]:
    """One call, of one of ``names`` if given. False, and nothing given out, for what is none;
    ``reader.taken`` has what was taken of it."""
    name = early = None
    whole: bool | None = None
    """Of the arguments; None while there are none."""
    more = yield from reader.follows("{")
    while more:
        key = _string((yield from reader.follows_json()))
        if key is None or not (yield from reader.follows(":")):
            break
        if key in _NAMES and name is None:
            name = _string((yield from reader.follows_json()))
            if not name or (names is not None and name not in names):
                return False
            yield CallStart(name)
        elif key in _ARGUMENTS and name is None:
            early = yield from reader.follows_json()
        elif key in _ARGUMENTS:
            whole = yield from read_arguments(reader)
        elif key not in _OTHERS or (yield from reader.follows_json()) is None:
            break
        more = yield from reader.follows(",")
    if not name:
        return False
    if whole is None and (yield from reader.follows("}")):
        yield CallArguments(as_object(early))
        whole = True
    else:
        yield from reader.follows("}")
    if whole:
        yield CallEnd()
    return True


def read_calls(reader: Reader) -> Reading[bool]:
    """One call, or a JSON array of them. False for what is none, as in ``read_call``."""
    if not (yield from reader.follows("[")):
        return (yield from read_call(reader))
    if not (yield from read_call(reader)):
        return False
    while (yield from reader.follows(",", ";")):
        yield from read_call(reader)
    yield from reader.follows("]")
    return True


def read_arguments(reader: Reader) -> Reading[bool]:
    """The object that comes next, or one in a string as some models write it. Whether it is whole."""
    yield from reader.skip_space()
    if (yield from reader.peek()) == "{":
        return (yield from reader.json_value(CallArguments)) is not None
    value = yield from reader.json_value()
    if value is None:
        return False
    yield CallArguments(as_object(value))
    return True


def read_named_call(reader: Reader, name: str, end: str, parameters: Reading[None]) -> Reading[None]:
    """A call of ``name``, which has been read: its arguments are one JSON object before ``end``, or what
    ``parameters`` reads one by one."""
    yield CallStart(name)
    yield from reader.skip_space()
    if (yield from reader.peek()) == "{":
        if (yield from read_arguments(reader)):
            yield CallEnd()
        yield from reader.follows(end)
    else:
        yield from parameters


def as_object(value: str | None) -> str:
    """JSON of an object: of arguments that may stand in a string, or not at all. What is no object stays as
    it is: only who knows the function can tell what is wrong."""
    text = _string(value)
    found = value if text is None else text
    if found and isinstance(_parsed(found), dict):
        return found
    return value if value and _parsed(value) else "{}"


def read_marked(reader: Reader, openings: Sequence[str], closing: str) -> Reading[None]:
    """Content, with calls after one of ``openings``, perhaps closed."""
    while mark := (yield from reader.until(openings, Content, trim=True)):
        reader.mark()
        if not (yield from read_calls(reader)):
            yield from give_back(reader, mark)
            continue
        yield from reader.follows(closing)
        yield from reader.skip_space()


def give_back(reader: Reader, mark: str) -> Reading[None]:
    """What began like a call, with ``mark``, and is none: it is content, unless it was cut off."""
    if not (reader.cut and reader.at_end):
        yield Content(reader.trimmed + mark + reader.taken)


def _string(value: str | None) -> str | None:
    found = _parsed(value)
    return found if isinstance(found, str) else None


def _parsed(value: str | None) -> Any:
    try:
        return json.loads(value or "null")
    except (ValueError, RecursionError):
        return None
