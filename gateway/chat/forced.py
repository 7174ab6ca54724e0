"""Grammars of answers that must be tool calls, may have some, or may reason before they keep to a form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gateway.chat.forced_parameters import parameter_rules
from gateway.chat.formats.tool_format import Layout, Schemas
from gateway.chat.lark import ANYTHING, Lark, json_of
from gateway.chat.thinking import Thinking

_MOST_CALLS: Final = 16
"""Of an answer: a weak model would go on for ever."""
_GAP: Final = r"/\n{0,2}/"


class LarkWriter(Lark):
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
            arguments = f"{rule}_with"
            written = layout.parameters and parameter_rules(self, arguments, layout.parameters, schema)
            lines.append(f"{rule}: {opening} {arguments} {self.text(layout.closing)}")
            lines += written or [f"{arguments}: {json_of({'type': 'object', **schema})}"]
        return "\n".join(dict.fromkeys(lines)) + "\n"

    def text_and_calls(self, *, several: bool) -> str:
        """The rule ``text_and_calls``: any text, and ``calls`` in it, which a token of their own begins."""
        return f"text_and_calls: TEXT (calls TEXT){'*' if several else '?'}\nTEXT: {ANYTHING}\n"

    def _reasoning(self, thinking: Thinking, opened: bool) -> str:
        opening = "" if opened else self.text(thinking.opening)
        return f"reasoning: {opening} thoughts {_GAP}\n{self.up_to('thoughts', thinking.closing)}\n"
