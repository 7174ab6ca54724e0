"""Regular expressions as all readers of JSON schemas understand them (ECMA-262, and Python's)."""

from __future__ import annotations

import re
from typing import Final

ANY: Final = r"[\x{0}-\x{10FFFF}]"
_TOKEN: Final = re.compile(r"\\.|\[\^?\]?|\]|\.|[^\\\[\].]+", re.DOTALL)
_OUTSIDE: Final = {".": r"[^\n\r\x{2028}\x{2029}]", r"\s": r"[ \t\n\r\f\v]", r"\S": r"[^\s\x{FEFF}]"}
_WITHIN: Final = {r"\s": r" \t\n\r\f\v", r"\S": r"[^\s\x{FEFF}]"}
_WITHIN_NOT: Final = {r"\s": r"\s\x{FEFF}", r"\S": r"\S\x{85}"}
"""What the grammar's own reader would take for more characters than others do: ends of lines and spaces."""


def portable(pattern: str) -> str:
    """One of the grammar's kind, of texts that every reader finds to match."""
    found, meanings = [], _OUTSIDE
    for token in _TOKEN.findall(pattern):
        if meanings is _OUTSIDE and token.startswith("["):
            meanings = _WITHIN_NOT if token.startswith("[^") else _WITHIN
        elif token == "]":
            meanings = _OUTSIDE
        found.append(meanings.get(token, token))
    return "".join(found)
