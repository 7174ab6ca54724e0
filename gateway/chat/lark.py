"""Parts of grammars, in Lark as llguidance has it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from gateway.chat.schemas.text import schema_text

ANYTHING: Final = "/(?s:.*)/"
_SPACES: Final = r"\x20?"
"""Between the parts of a call's JSON, as models write it; weak ones would fill any more room."""


class Lark:
    """``tokens``: ids of the texts that are tokens of their own, which no string in a grammar matches."""

    def __init__(self, tokens: Mapping[str, int]) -> None:
        self._tokens = tokens
        self._split = re.compile("|".join(map(re.escape, tokens)) or r"(?!)")

    def begins_with_token(self, text: str) -> bool:
        return self._split.match(text) is not None

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

    def up_to(self, rule: str, end: str) -> str:
        """``rule``: any text, up to the first ``end`` and with it. A token in it may be spelled out, too."""
        spelled = f"[suffix={json.dumps(end, ensure_ascii=False)}]: {ANYTHING}"
        token = self._split.search(end)
        if token is None:
            return f"{rule}{spelled}"
        before, text = re.escape(end[: token.start()]).replace("/", r"\x2F"), rule.upper()
        return (
            f"{rule}: {text} {self.text(end[token.start() :])} | {rule}_spelled\n"
            f"{rule}_spelled{spelled}\n"
            f"{text}: {ANYTHING[:-1]}{before}/"
        )


def json_of(schema: Mapping[str, Any]) -> str:
    """JSON that is valid by it. Raises SchemaError and RecursionError."""
    flat = schema.get("type") in ("integer", "number", "boolean", "null")
    spaces = {} if flat else {"x-guidance": {"whitespace_pattern": _SPACES}}
    return f"%json {schema_text(schema, **spaces)}"
