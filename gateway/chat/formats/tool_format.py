"""What a way of writing tool calls consists of."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.chat.reader import Reader, Reading
from gateway.chat.thinking import Thinking

Schemas = Mapping[str, Mapping[str, Any]]
"""The JSON schema of each function's arguments, by its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """How arguments are written one by one: marks before and after the value of ``$KEY``."""

    text: tuple[str, str]
    """Of a value written as it is."""
    json: tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How one or several calls are written, for answers that must be calls. ``$NAME`` is the function's."""

    before: str = ""
    opening: str
    """Up to the arguments, a JSON object."""
    closing: str = ""
    between: str | None = None
    """None: there is one call only."""
    after: str = ""
    tool_role: bool = False
    """The model knows results by the role ``tool``, even where its template tells of no calls."""
    parameters: Parameters | None = None
    """In place of the JSON object, where the schema of a function allows it."""

    @property
    def start(self) -> str:
        """What every answer in it begins with, and perhaps more."""
        return self.before + self.opening


def _call_id() -> str:
    return f"call_{secrets.token_hex(12)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolFormat:
    read: Callable[[Reader, Schemas], Reading[None]]
    """An answer: content, with calls in it."""
    layout: Layout
    marks: tuple[str, ...] = ()
    """Texts that may be special tokens of a tokenizer: then they must not be left out of the text."""
    thinking: Thinking | None = None
    """Of a format that reads its reasoning itself."""
    content: str = ""
    """What comes before content."""
    call_id: Callable[[], str] = _call_id
