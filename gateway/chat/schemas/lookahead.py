"""What a regular expression looks ahead to at its beginning, as expressions that must match besides."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

_LOOKAROUND: Final = re.compile(r"\(\?(?:<?[=!])")
_BOUNDARY: Final = re.compile(r"(?:^|[^\\])(?:\\\\)*\\[bB1-9]")
_CHAR: Final = r"(?P<char>\\[^\w\s]|[\w@-])"
_NOT_FIRST: Final = re.compile(_CHAR)
_NOT_DOUBLE: Final = re.compile(rf"\.\*{_CHAR}(?P=char)")


def conjuncts(pattern: str) -> list[str]:
    """Expressions that together match what this one does. Raises ValueError for what no grammar has."""
    found = []
    rest = pattern.removeprefix("^")
    while pattern.startswith("^") and rest.startswith(("(?=", "(?!")):
        end = _end_of_group(rest)
        inner = rest[3 : end - 1]
        found.append(f"^(?:{inner})" if rest.startswith("(?=") else _never(inner))
        rest = rest[end:]
    if found and any(depth == 0 and char == "|" for char, depth in _depths(rest)):
        raise ValueError("looking ahead before alternatives")
    if _LOOKAROUND.search(rest) or any(map(_LOOKAROUND.search, found)):
        raise ValueError("looking ahead or behind")
    if _BOUNDARY.search(re.sub(r"\[\\b\]", "", rest)):
        raise ValueError("a boundary of words, or a reference back,")
    return [*found, f"^{rest}" if found else pattern]


def _never(inner: str) -> str:
    """The expression of texts at whose beginning ``inner`` does not match: some character, or it twice."""
    if found := _NOT_FIRST.fullmatch(inner):
        return rf"^(?:[^{found['char']}]|$)"
    if found := _NOT_DOUBLE.fullmatch(inner):
        char = found["char"]
        return rf"^{char}?(?:[^{char}]+{char})*[^{char}]*$"
    raise ValueError("looking ahead to what must not come")


def _end_of_group(text: str) -> int:
    for at, (char, depth) in enumerate(_depths(text)):
        if char == ")" and depth == 0:
            return at + 1
    raise ValueError("an unclosed group")


def _depths(text: str) -> Iterator[tuple[str, int]]:
    """Each character, and in how many groups it is; those that are quoted or of a class are of no meaning."""
    depth, within, quoted = 0, False, False
    for char in text:
        if not quoted and not within:
            depth += {"(": 1, ")": -1}.get(char, 0)
        yield ("" if quoted or within else char), depth
        if not quoted and char in "[]":
            within = char == "["
        quoted = char == "\\" and not quoted
