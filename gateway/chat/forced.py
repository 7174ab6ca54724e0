"""Grammars of answers that must be tool calls, or that may reason before they keep to a form (Lark, as
llguidance has it)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from gateway.chat.formats.tool_format import Layout, Schemas
from gateway.chat.schemas.schema import SchemaError
from gateway.chat.schemas.text import schema_text
from gateway.chat.thinking import Thinking
from gateway.errors import InvalidRequest

_SPACES: Final = r"[\x20\x0A]{0,8}"
"""Between the parts of a call's JSON."""
_MOST_CALLS: Final = 16
"""Of an answer: a weak model would go on for ever."""
_ANYTHING: Final = "/(?s:.*)/"
_GAP: Final = r"/\n{0,2}/"


class LarkWriter:
    """``tokens``: ids of the texts that are tokens of their own, which no string in a grammar matches."""

    def __init__(self, tokens: Mapping[str, int]) -> None:
        self._tokens = tokens
        self._split = re.compile("|".join(map(re.escape, tokens)) or r"(?!)")

    def frame(
        self, *, body: Sequence[str], thinking: Thinking | None, opened: bool, content: str = ""
    ) -> str:
        """Of an answer that is one of ``body``, rules or ``@body``, after the reasoning, if there is any.
        ``content``: what comes before ``@body``."""
        rules = [f"({self.text(content)} {part})" if content and part == "@body" else part for part in body]
        start = f"({' | '.join(rules)})"
        if thinking is None:
            return f"start: {start}\n"
        begun = "reasoning" if opened else "reasoning?"
        return f"start: {begun} {start}\n{self._reasoning(thinking, opened)}"

    def calls(self, layout: Layout, functions: Schemas, *, several: bool) -> str:
        """The rule ``calls``: one call of these functions, or ``several``."""
        names = [f"call_{at}" for at in range(len(functions))]
        between = layout.between if several else None
        more = "" if between is None else f" ({self.text(between)} call){{0,{_MOST_CALLS - 1}}}"
        lines = [
            f"calls: {self.text(layout.before)} call{more} {self.text(layout.after)}",
            f"call: {' | '.join(names)}",
        ]
        for rule, (function, schema) in zip(names, functions.items(), strict=True):
            opening = self.text(layout.opening.replace("$NAME", function))
            lines.append(f"{rule}: {opening} {rule}_arguments {self.text(layout.closing)}")
            lines.append(f"{rule}_arguments: %json {_arguments(function, schema)}")
        return "\n".join(lines) + "\n"

    def text(self, text: str) -> str:
        """This very text."""
        parts, at = [], 0
        for mark in self._split.finditer(text):
            parts += [text[at : mark.start()], f"<[{self._tokens[mark[0]]}]>"]
            at = mark.end()
        parts.append(text[at:])
        return " ".join(
            part if index % 2 else json.dumps(part, ensure_ascii=False)
            for index, part in enumerate(parts)
            if part
        )

    def _reasoning(self, thinking: Thinking, opened: bool) -> str:
        opening = "" if opened else self.text(thinking.opening)
        if self._split.match(thinking.closing):
            thoughts = f"thoughts: ANYTHING {self.text(thinking.closing)}\nANYTHING: {_ANYTHING}"
        else:
            thoughts = f"thoughts[suffix={json.dumps(thinking.closing)}]: {_ANYTHING}"
        return f"reasoning: {opening} thoughts {_GAP}\n{thoughts}\n"


def _arguments(function: str, schema: Mapping[str, Any]) -> str:
    spaces = {"x-guidance": {"whitespace_pattern": _SPACES}}
    try:
        return schema_text({"type": "object", **schema}, **spaces)
    except SchemaError as error:
        raise InvalidRequest(f"the parameters of {function!r}: {error}", param="tools") from None
    except RecursionError:
        raise InvalidRequest(f"the parameters of {function!r} are nested too deeply", param="tools") from None
