"""Text that comes in pieces, broken between words for a terminal; code is left as it is."""

from __future__ import annotations

import re
from typing import Final

from rich.cells import cell_len

_PARTS: Final = re.compile(r"\n|[^\S\n]+|\S+")
_FENCE: Final = "```"


class WordWrap:
    def __init__(self, width: int) -> None:
        self._width = width
        self._column = 0
        self._word = ""
        """What has come of the last word."""
        self._space = ""
        """What stands before it, if the line goes on."""
        self._in_code = False

    def feed(self, text: str) -> str:
        """What can be shown by now: all but the word at the end, which may go on."""
        *parts, self._word = [*_PARTS.findall(self._word + text), ""]
        if parts and not parts[-1].isspace():
            self._word = parts.pop()
        return "".join(map(self._place, parts))

    def flush(self) -> str:
        """The rest, at the end of the text."""
        word, self._word = self._word, ""
        return self._place(word) if word else ""

    def _place(self, part: str) -> str:
        if part == "\n":
            self._column, self._space = 0, ""
            return part
        if part.isspace():
            self._space += part
            return ""
        if part.startswith(_FENCE) and not self._column:
            self._in_code = not self._in_code
        space, self._space = self._space, ""
        self._column += cell_len(space + part)
        if self._column <= self._width or self._in_code or self._column == cell_len(space + part):
            return space + part
        self._column = cell_len(part)
        return "\n" + part
