"""Prompts that end within the final message, so that the model goes on with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.errors import InvalidRequest


def cut_after_final_message(prompt: str, message: Mapping[str, Any]) -> str:
    """Everything up to the end of the final message's text."""
    text = _last_text(message)
    start = prompt.rfind(text.strip()) if text.strip() else -1
    if start < 0:
        raise InvalidRequest(
            "continue_final_message: the final message has no text that the chat template keeps",
            param="continue_final_message",
        )
    # Templates often strip; a trailing space of the client's is kept where the template kept it.
    unstripped = text.lstrip()
    if prompt.startswith(unstripped, start):
        return prompt[: start + len(unstripped)]
    return prompt[: start + len(text.strip())]


def continued_text(prompt: str, message: Mapping[str, Any]) -> str:
    """What such a prompt ends with of the final message."""
    return prompt[prompt.rindex(_last_text(message).strip()) :]


def _last_text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        part = content[-1] if content else {}
        content = part.get("text") or part.get("refusal")
    return content or ""
