"""Grammars of answers that must be tool calls, may have some, or may reason before they keep to a form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from gateway.chat.forced_parameters import parameter_rules
from gateway.chat.formats.tool_format import Layout, Schemas
from gateway.chat.lark import ANYTHING, Lark, json_of
from gateway.chat.schemas.schema import SchemaError
from gateway.chat.thinking import Thinking
from gateway.errors import InvalidRequest

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

    def calls(self, layout: Layout, functions: Schemas, *, most: int) -> str:
        """The rule ``calls``: one call of these functions, or up to ``most``."""
        names = [f"call_{at}" for at in range(len(functions))]
        between = layout.between if most > 1 else None
        more = "" if between is None else f" ({self.text(between)} call){{0,{most - 1}}}"
        lines = [
            f"calls: {self.text(layout.before)} call{more} {self.text(layout.after)}",
            f"call: {' | '.join(names)}",
        ]
        for rule, (function, schema) in zip(names, functions.items(), strict=True):
            lines += self._call(rule, layout, function, schema)
        return "\n".join(dict.fromkeys(lines)) + "\n"

    def text_and_calls(self, *, several: bool) -> str:
        """The rule ``text_and_calls``: any text, and ``calls`` in it, which a token of their own begins."""
        return f"text_and_calls: TEXT (calls TEXT){'*' if several else '?'}\nTEXT: {ANYTHING}\n"

    def _call(self, rule: str, layout: Layout, function: str, schema: Mapping[str, Any]) -> list[str]:
        """``rule`` and those it needs."""
        opening, arguments = self.text(layout.opening.replace("$NAME", function)), f"{rule}_with"
        try:
            written = layout.parameters and parameter_rules(self, arguments, layout.parameters, schema)
            written = written or [f"{arguments}: {json_of({'type': 'object', **schema})}"]
        except SchemaError as error:
            raise InvalidRequest(f"the parameters of {function!r}: {error}", param="tools") from None
        except RecursionError:
            reason = f"the parameters of {function!r} are nested too deeply"
            raise InvalidRequest(reason, param="tools") from None
        return [f"{rule}: {opening} {arguments} {self.text(layout.closing)}", *written]

    def _reasoning(self, thinking: Thinking, opened: bool) -> str:
        opening = "" if opened else self.text(thinking.opening)
        return f"reasoning: {opening} thoughts {_GAP}\n{self.up_to('thoughts', thinking.closing)}\n"
