"""Regular expressions as all readers of JSON schemas understand them (ECMA-262, and Python's)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from gateway.chat.schemas.document import Document
from gateway.chat.schemas.lookahead import conjuncts
from gateway.chat.schemas.schema import Schema, SchemaError

ANY: Final = r"[\x{0}-\x{10FFFF}]"
_TOKEN: Final = re.compile(r"\\.|\[\^?\]?|\]|\.|[^\\\[\].]+", re.DOTALL)
_NO_WORD: Final = r"\x{20}-\x{2F}\x{3A}-\x{40}\x{5B}-\x{5E}\x{60}\x{7B}-\x{7E}"
_NO_DIGIT: Final = r"\x{20}-\x{2F}\x{3A}-\x{7E}"
_OUTSIDE: Final = {
    ".": r"[^\n\r\x{2028}\x{2029}]",
    r"\s": r"[ \t\n\r\f\v]",
    r"\S": r"[^\s\x{FEFF}]",
    r"\W": f"[{_NO_WORD}]",
    r"\D": f"[{_NO_DIGIT}]",
}
_WITHIN: Final = {
    r"\s": r" \t\n\r\f\v",
    r"\S": r"[^\s\x{FEFF}]",
    r"\W": _NO_WORD,
    r"\D": _NO_DIGIT,
}
_WITHIN_NOT: Final = {
    r"\s": r"\s\x{FEFF}",
    r"\S": r"\S\x{85}",
    r"\w": r"\w\x{80}-\x{10FFFF}",
    r"\d": r"\d\x{80}-\x{10FFFF}",
}
"""What the grammar's own reader would take for more characters than others do: ends of lines, spaces, and
what is no letter or digit, of which some know many more than ASCII's."""
_OPERATOR: Final = re.compile(r"([&~-])(?=\1)")
"""Of sets of characters, to the grammar's reader alone."""


def matching(pattern: Any, schema: Mapping[str, Any], document: Document, place: str) -> Iterator[Schema]:
    """Of ``pattern``: in the grammar's own words."""
    for part in readable(pattern, place):
        yield {"pattern": part}


def readable(pattern: Any, place: str) -> list[str]:
    """Of the grammar's kind, all of which must match. Raises SchemaError."""
    if not isinstance(pattern, str):
        raise SchemaError("a pattern is a text", place)
    try:
        return [_portable(part) for part in conjuncts(pattern)]
    except ValueError as error:
        raise SchemaError(f"{error} in a pattern cannot be enforced", place) from None


def _portable(pattern: str) -> str:
    """Matches texts that every reader finds to match."""
    found, meanings = [], _OUTSIDE
    for token in _TOKEN.findall(pattern):
        if meanings is _OUTSIDE and token.startswith("["):
            meanings = _WITHIN_NOT if token.startswith("[^") else _WITHIN
        elif token.startswith("["):  # one more character of the set
            token, meanings = "\\" + token, _OUTSIDE if token.endswith("]") else meanings
        elif token == "]":
            meanings = _OUTSIDE
        elif meanings is not _OUTSIDE:
            token = _OPERATOR.sub(r"\\\1", token)
        found.append(meanings.get(token, token))
    return "".join(found)
