"""Tools for a model whose template knows of none: told in words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from gateway.chat.formats.hermes import CLOSE, OPEN
from gateway.chat.formats.tool_format import Layout
from gateway.chat.messages import TemplateMessage, message_text

_BEFORE: Final = "You may call these functions, given as JSON:\n"
_AFTER: Final = "\nTo call one, answer with nothing but this, once for each call:\n"
_NAME: Final = "the function's name"


def tools_in_words(
    messages: Sequence[TemplateMessage], tools: Sequence[Mapping[str, Any]], layout: Layout
) -> list[TemplateMessage]:
    """The first message that is not the assistant's tells of ``tools``, to be called in this ``layout``."""
    at = next((at for at, message in enumerate(messages) if message["role"] != "assistant"), 0)
    functions = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
    opening = layout.opening.replace("$NAME", _NAME)
    call = f"{layout.before}{opening}{{...}}{layout.closing}{layout.after}"
    told = _with_text(messages[at], before=f"{_BEFORE}{functions}{_AFTER}{call}\n\n")
    return [*messages[:at], told, *messages[at + 1 :]]


def calls_in_words(messages: Sequence[TemplateMessage]) -> list[TemplateMessage]:
    """Calls and their results as texts of the assistant and the user."""
    return [_in_words(message) for message in messages]


def _in_words(message: TemplateMessage) -> TemplateMessage:
    if message["role"] == "tool":
        answered = {"role": "user", "content": message["content"]}
        return _with_text(answered, before="<tool_response>\n", after="\n</tool_response>")
    plain = {key: value for key, value in message.items() if key != "tool_calls"}
    calls = [
        f"{OPEN}\n{json.dumps(call['function'], ensure_ascii=False)}\n{CLOSE}"
        for call in message.get("tool_calls", ())
    ]
    return _with_text(plain, after="\n".join(calls)) if calls else plain


def _with_text(message: TemplateMessage, before: str = "", after: str = "") -> TemplateMessage:
    text = f"{before}{message_text(message)}{after}"
    in_parts = isinstance(message["content"], list)
    return {**message, "content": [{"type": "text", "text": text}] if in_parts else text}
