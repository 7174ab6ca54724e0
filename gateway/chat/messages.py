"""Messages as chat templates want them, from messages as clients send them.

Templates differ in what they can read: most know only text as content, some loop over its parts, and few
know the role ``developer``. A client need not care; what cannot be brought into shape is an
``InvalidRequest`` that names the field.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.errors import InvalidRequest

TemplateMessage = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageStyle:
    """What a template can read."""

    parts: bool
    """It loops over content given as a list."""
    strings: bool
    """It asks whether content is a string, so that both are welcome."""
    developer: bool
    """It knows the role ``developer``."""
    tools: bool
    """It tells the model of the tools there are."""
    calls: bool
    """It tells of calls that were made."""
    none: bool
    """It asks whether content is none."""


def to_template(messages: Sequence[Mapping[str, Any]], style: MessageStyle) -> list[TemplateMessage]:
    return [_to_template(message, style, f"messages[{i}]") for i, message in enumerate(messages)]


def arguments_as_text(messages: Sequence[TemplateMessage]) -> list[TemplateMessage]:
    """With the arguments of calls as JSON."""
    return [
        {**message, "tool_calls": [_with_text_arguments(call) for call in message["tool_calls"]]}
        if "tool_calls" in message
        else message
        for message in messages
    ]


def message_text(message: Mapping[str, Any]) -> str:
    """The text of a message, its parts joined."""
    content = message.get("content")
    if isinstance(content, list):
        return "\n".join(part.get("text") or part.get("refusal") or "" for part in content)
    return content or ""


def _to_template(message: Mapping[str, Any], style: MessageStyle, where: str) -> TemplateMessage:
    message = _modern(message)
    shaped = {**message, "content": _content(message, style, where)}
    if message["role"] == "developer" and not style.developer:
        shaped["role"] = "system"
    if reasoning := shaped.pop("reasoning", None) or shaped.get("reasoning_content"):
        shaped["reasoning_content"] = reasoning
        if not (shaped["content"] and shaped.get("tool_calls")):
            shaped["thinking"] = reasoning  # another name, in templates that refuse it beside these two
    if calls := shaped.pop("tool_calls", None):  # templates ask whether the key is there
        shaped["tool_calls"] = [_tool_call(call, f"{where}.tool_calls[{i}]") for i, call in enumerate(calls)]
    return shaped


def _modern(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """``function_call`` and the role ``function``, of OpenAI's first API, as what came after them."""
    found = dict(message)
    if call := found.pop("function_call", None):
        found["tool_calls"] = [{"type": "function", "function": call}]
    if found["role"] == "function":
        found["role"] = "tool"
    return found


def _content(
    message: Mapping[str, Any], style: MessageStyle, where: str
) -> str | list[dict[str, str]] | None:
    content = message.get("content")
    if content is None:
        if message["role"] != "assistant":
            raise InvalidRequest(f"a {message['role']} message needs content", param=f"{where}.content")
        if style.none:
            return None
        return "" if not style.parts or style.strings else []
    if isinstance(content, str):
        return content if not style.parts or style.strings else [{"type": "text", "text": content}]
    parts = [_text_part(part, f"{where}.content[{i}]") for i, part in enumerate(content)]
    return parts if style.parts else message_text({"content": parts})


def _text_part(part: Mapping[str, Any], where: str) -> dict[str, str]:
    kind = part["type"]
    if kind not in ("text", "refusal"):
        raise InvalidRequest(f"only text can be read, not content of type {kind!r}", param=f"{where}.type")
    text = part.get(kind)
    if text is None:
        raise InvalidRequest(f"a {kind} part needs {kind}", param=f"{where}.{kind}")
    return {"type": "text", "text": text}


def _tool_call(call: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Templates print arguments as an object; clients send them as a string of JSON."""
    function = call["function"]
    arguments = function.get("arguments") or "{}"
    if isinstance(arguments, str):
        try:
            arguments = msgspec.json.decode(arguments)
        except (msgspec.DecodeError, RecursionError):
            raise InvalidRequest(
                "arguments are not valid JSON", param=f"{where}.function.arguments"
            ) from None
    return {**call, "function": {**function, "arguments": arguments}}


def _with_text_arguments(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    text = json.dumps(function["arguments"], ensure_ascii=False)
    return {**call, "function": {**function, "arguments": text}}
