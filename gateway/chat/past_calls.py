"""Calls of a conversation and their results, as chat templates take them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

from gateway.chat.messages import TemplateMessage

_SHORT: Final = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class CallStyle:
    """How a template takes calls."""

    single: bool
    """It tells of the first call of a message only."""
    apart: bool
    """It tells of no calls where a message has content."""
    short_ids: bool
    """It refuses ids that are not of nine letters and digits."""


def shaped_calls(messages: Sequence[TemplateMessage], style: CallStyle) -> list[TemplateMessage]:
    found = _with_ids(messages)
    if style.short_ids:
        found = [_with_short_ids(message) for message in found]
    if style.apart:
        found = [part for message in found for part in _apart(message)]
    return _one_by_one(found) if style.single else found


def _with_ids(messages: Sequence[TemplateMessage]) -> list[TemplateMessage]:
    """Every call gets an id, and every result that of a call: of the first without one, if it names none."""
    unused, waiting, found = count(), [], []
    for message in messages:
        if calls := message.get("tool_calls"):
            calls = [{**call, "id": call.get("id") or f"call_{next(unused)}"} for call in calls]
            waiting = [call["id"] for call in calls]
            message = {**message, "tool_calls": calls}
        elif message["role"] == "tool":
            id = message.get("tool_call_id") or (waiting[0] if waiting else f"call_{next(unused)}")
            waiting = [other for other in waiting if other != id]
            message = {**message, "tool_call_id": id}
        found.append(message)
    return found


def _with_short_ids(message: TemplateMessage) -> TemplateMessage:
    if "tool_calls" in message:
        calls = [{**call, "id": _short(call["id"])} for call in message["tool_calls"]]
        return {**message, "tool_calls": calls}
    if message["role"] == "tool":
        return {**message, "tool_call_id": _short(message["tool_call_id"])}
    return message


def _short(id: str) -> str:
    """The same for the same ``id``."""
    if re.fullmatch(rf"[A-Za-z0-9]{{{_SHORT}}}", id):
        return id
    return hashlib.sha256(id.encode(errors="surrogatepass")).hexdigest()[:_SHORT]


def _apart(message: TemplateMessage) -> Iterable[TemplateMessage]:
    """Content, then calls."""
    if not message["content"] or "tool_calls" not in message:
        return [message]
    said = {key: value for key, value in message.items() if key != "tool_calls"}
    return [said, {"role": message["role"], "content": None, "tool_calls": message["tool_calls"]}]


def _one_by_one(messages: Sequence[TemplateMessage]) -> list[TemplateMessage]:
    """A message for each call, with the results of that call after it."""
    found: list[TemplateMessage] = []
    at = 0
    while at < len(messages):
        message, calls = messages[at], messages[at].get("tool_calls", ())
        at += 1
        if len(calls) < 2:
            found.append(message)
            continue
        end = next((i for i in range(at, len(messages)) if messages[i]["role"] != "tool"), len(messages))
        found += _each_call(message, calls, messages[at:end])
        at = end
    return found


def _each_call(
    message: TemplateMessage, calls: Sequence[Any], results: Sequence[TemplateMessage]
) -> Iterable[TemplateMessage]:
    empty = type(message["content"])()
    for index, call in enumerate(calls):
        first = message if index == 0 else {"role": message["role"], "content": empty}
        yield {**first, "tool_calls": [call]}
        yield from (result for result in results if result["tool_call_id"] == call["id"])
    ids = [call["id"] for call in calls]
    yield from (result for result in results if result["tool_call_id"] not in ids)
