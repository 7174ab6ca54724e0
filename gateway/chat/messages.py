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
    none: bool
    """It asks whether content is none."""
    thoughts: bool
    """It takes reasoning as a part of the content."""
    developer: bool = False
    """It knows the role ``developer``."""
    system: bool = True
    """It knows the role ``system``."""


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


def without_none(messages: Sequence[TemplateMessage]) -> list[TemplateMessage]:
    """With empty text for no content."""
    return [{**message, "content": ""} if message["content"] is None else message for message in messages]


def without_system(messages: Sequence[TemplateMessage]) -> list[TemplateMessage]:
    """With what the system says at the beginning of what the user says next."""
    found: list[TemplateMessage] = []
    told = ""
    for message in messages:
        if message["role"] == "system":
            told += f"{message_text(message)}\n\n"
        elif message["role"] == "user":
            found.append(with_text(message, before=told))
            told = ""
        else:
            found.append(message)
    return [*found, {"role": "user", "content": told.strip()}] if told else found


def with_text(message: TemplateMessage, before: str = "", after: str = "") -> TemplateMessage:
    """With more text around its own."""
    text = f"{before}{message_text(message)}{after}"
    content = message["content"]
    if not isinstance(content, list):
        return {**message, "content": text}
    thoughts = [part for part in content if part["type"] == "thinking"]
    return {**message, "content": [*thoughts, {"type": "text", "text": text}]}


def message_text(message: Mapping[str, Any]) -> str:
    """The text of a message, its parts joined."""
    content = message.get("content")
    if isinstance(content, list):
        texts = (part.get("text") or part.get("refusal") for part in content if part["type"] != "thinking")
        return "\n".join(text or "" for text in texts)
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
        if style.thoughts:
            shaped["content"] = [{"type": "thinking", "thinking": reasoning}, *_parts(shaped["content"])]
    if calls := shaped.pop("tool_calls", None):  # templates ask whether the key is there
        shaped["tool_calls"] = [_tool_call(call) for call in calls]
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
    if content is None and message["role"] == "tool":
        content = ""  # of a function that returns nothing
    if content is None and message["role"] != "assistant":
        raise InvalidRequest(f"a {message['role']} message needs content", param=f"{where}.content")
    if content is None or (not content and message.get("tool_calls")):
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


def _parts(content: str | list[dict[str, str]] | None) -> list[dict[str, str]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return content or []


def _tool_call(call: Mapping[str, Any]) -> dict[str, Any]:
    """Templates print arguments as an object; clients send them as a string of JSON."""
    function = call["function"]
    return {**call, "function": {**function, "arguments": _arguments(function.get("arguments"))}}


def _arguments(given: Any) -> Any:
    """What a model has got wrong comes back as it is, within an object."""
    arguments = given or {}
    if isinstance(given, str) and given:
        try:
            arguments = msgspec.json.decode(given)
        except (msgspec.DecodeError, RecursionError):
            arguments = given
    if arguments is None:
        return {}
    return arguments if isinstance(arguments, dict) else {"arguments": arguments}


def _with_text_arguments(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    text = json.dumps(function["arguments"], ensure_ascii=False)
    return {**call, "function": {**function, "arguments": text}}
