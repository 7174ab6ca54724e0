"""Tools for a model whose template knows of none: told in words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from gateway.chat.formats.tool_format import Layout
from gateway.chat.messages import TemplateMessage, message_text, with_text

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
    told = with_text(messages[at], before=f"{_BEFORE}{functions}{_AFTER}{call}\n\n")
    return [*messages[:at], told, *messages[at + 1 :]]


def tools_in_system(
    messages: Sequence[TemplateMessage], tools: Sequence[Mapping[str, Any]]
) -> list[TemplateMessage]:
    """With a system message that has ``tools``, as JSON, beside its content."""
    first, *rest = messages
    if first["role"] != "system":
        first, rest = {"role": "system", "content": ""}, list(messages)
    functions = json.dumps([tool["function"] for tool in tools], ensure_ascii=False)
    return [{**first, "tools": functions}, *rest]


def calls_in_words(messages: Sequence[TemplateMessage], layout: Layout) -> list[TemplateMessage]:
    """Calls and their results as texts of the assistant and the user: one text for results in a row."""
    found: list[TemplateMessage] = []
    after_result = False
    for message in messages:
        result = message["role"] == "tool" and not layout.tool_role
        if result and after_result:
            found[-1] = with_text(found[-1], after=f"\n{with_text(_result(message))['content']}")
        else:
            found.append(_result(message) if result else _calls(message, layout))
        after_result = result
    return found


def _result(message: TemplateMessage) -> TemplateMessage:
    answered = {"role": "user", "content": message["content"]}
    return with_text(answered, before="<tool_response>\n", after="\n</tool_response>")


def _calls(message: TemplateMessage, layout: Layout) -> TemplateMessage:
    plain = {key: value for key, value in message.items() if key != "tool_calls"}
    if "tool_calls" not in message:
        return plain
    calls = [
        f"{layout.opening.replace('$NAME', function['name'])}"
        f"{json.dumps(function['arguments'], ensure_ascii=False)}{layout.closing}"
        for function in (call["function"] for call in message["tool_calls"])
    ]
    between = "\n" if layout.between is None else layout.between
    told = f"{layout.before}{between.join(calls)}{layout.after}"
    return with_text(plain, after=f"\n{told}" if message_text(plain) else told)
