"""An answer's text as it comes, for formats written as if it were all there.

What reads is a generator: it yields the pieces it is certain of, and None when it needs more text. So a
format reads top to bottom (``yield from reader.until(...)``), and where the text is cut makes no difference.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Sequence
from typing import Final, TypeVar

from gateway.chat.pieces import Piece

T = TypeVar("T")

Reading = Generator[Piece | None, None, T]
"""Yields pieces, and None when it needs more text; returns T."""
Wrap = Callable[[str], Piece]

_SCALAR_END: Final = frozenset(" \t\r\n,:;]})<")


class Reader:
    def __init__(self) -> None:
        self._text = ""
        self._ended = False
        self._taken: list[str] | None = None
        """Since ``mark``."""
        self.trimmed = ""
        """White space that the last ``until`` has dropped."""
        self.cut = False
        """The text has ended before its time."""

    def feed(self, text: str) -> None:
        self._text += text

    def end(self, *, cut: bool = False) -> None:
        """There is no more text; if it was cut off, not even what was to come."""
        self._ended = True
        self.cut = cut

    @property
    def at_end(self) -> bool:
        return self._ended and not self._text

    def mark(self) -> None:
        """From here on what is taken is kept for ``taken``."""
        self._taken = []

    @property
    def taken(self) -> str:
        """What was taken since ``mark``."""
        return "".join(self._taken or ())

    def until(self, markers: Sequence[str], wrap: Wrap, *, trim: bool = False) -> Reading[str | None]:
        """Give out text up to the first of ``markers``, which is taken too and returned; None at the end.
        With ``trim`` white space before a marker is dropped. What was taken so far is forgotten."""
        self._taken = None
        trim = trim and bool(markers)
        begins = frozenset(marker[0] for marker in markers)
        while True:
            may_begin = not begins.isdisjoint(self._text)
            at, marker = self._first(markers) if may_begin else (-1, None)
            if marker is not None:
                before = self._take(at)
                self._take(len(marker))
                kept = before.rstrip() if trim else before
                self.trimmed = before[len(kept) :]
                if kept:
                    yield wrap(kept)
                return marker
            if certain := self._take(self._certain(markers if may_begin else (), trim)):
                yield wrap(certain)
            if self._ended:
                return None
            yield None

    def text_until(self, *markers: str) -> Reading[str | None]:
        """The text before the first of ``markers``, which is taken too; None if none comes."""
        longest, searched = max(map(len, markers)), 0
        while True:
            at, marker = self._first(markers, searched)
            searched = max(0, len(self._text) - longest)
            if marker is not None:
                text = self._take(at)
                self._take(len(marker))
                return text
            if self._ended:
                self._take(len(self._text))
                return None
            yield None

    def starts(self, *markers: str) -> Reading[str | None]:
        """Take the one of ``markers`` that comes next, or what is left of it where the text was cut off."""
        while True:
            for marker in markers:
                if self._text.startswith(marker):
                    return self._take(len(marker))
                if self.cut and self._text and marker.startswith(self._text):
                    self._take(len(self._text))
                    return marker
            if self._ended or not any(marker.startswith(self._text) for marker in markers):
                return None
            yield None

    def matching(self, pattern: re.Pattern[str]) -> Reading[str]:
        """The longest text that comes next and matches; it may be empty. ``pattern`` must match every
        beginning of what it matches."""
        while True:
            found = pattern.match(self._text)
            end = found.end() if found else 0
            if end < len(self._text) or self._ended:
                return self._take(end)
            yield None

    def skip_space(self) -> Reading[None]:
        while True:
            self._take(len(self._text) - len(self._text.lstrip()))
            if self._text or self._ended:
                return
            yield None

    def follows(self, *markers: str) -> Reading[str | None]:
        """As ``starts``, after white space."""
        yield from self.skip_space()
        return (yield from self.starts(*markers))

    def json_value(self, wrap: Wrap | None = None, *, quotes: str = '"') -> Reading[str | None]:
        """The text of the JSON value that begins here, as it is; given out as it comes if ``wrap`` is given.
        None if it breaks off. ``quotes``: those that strings may have."""
        scan, value = _ValueScan(quotes), ""
        while True:
            end = scan.feed(self._text)
            part = self._take(len(self._text) if end is None else end)
            if part and wrap:
                yield wrap(part)
            value += part
            if end is not None:
                return value if value else None
            if self._ended:
                return value if scan.may_end else None
            yield None

    def follows_json(self) -> Reading[str | None]:
        yield from self.skip_space()
        return (yield from self.json_value())

    def peek(self) -> Reading[str]:
        """The next character; empty at the end."""
        while not self._text and not self._ended:
            yield None
        return self._text[:1]

    def _take(self, size: int) -> str:
        taken, self._text = self._text[:size], self._text[size:]
        if self._taken is not None and taken:
            self._taken.append(taken)
        return taken

    def _first(self, markers: Sequence[str], start: int = 0) -> tuple[int, str | None]:
        found = [(at, marker) for marker in markers if (at := self._text.find(marker, start)) >= 0]
        return min(found, key=lambda place: place[0]) if found else (-1, None)

    def _certain(self, markers: Sequence[str], trim: bool) -> int:
        """How much of the text cannot be, nor be before, the beginning of a marker."""
        if self._ended:
            return len(self._text)
        size = len(self._text)
        if markers:
            size -= max([_overlap(self._text, marker) for marker in markers])
        return len(self._text[:size].rstrip()) if trim else size


class _ValueScan:
    """Finds where a JSON value ends."""

    def __init__(self, quotes: str) -> None:
        self._quotes = quotes
        self._depth = 0
        self._quote = ""
        """Of the string that it is in."""
        self._escaped = False
        self._begun = False

    def feed(self, text: str) -> int | None:
        """Where the value ends within ``text``, its next part; None if beyond."""
        for at, char in enumerate(text):
            if self._quote:
                self._string(char)
                if not self._quote and not self._depth:
                    return at + 1
            elif char in self._quotes:
                self._begun, self._quote = True, char
            elif char in "{[":
                self._begun, self._depth = True, self._depth + 1
            elif self._depth and char in "}]":
                self._depth -= 1
                if not self._depth:
                    return at + 1
            elif not self._depth and char in _SCALAR_END:
                return at
            else:
                self._begun = True
        return None

    @property
    def may_end(self) -> bool:
        """Whether the value is whole if nothing follows: a number, or a word."""
        return self._begun and not self._depth and not self._quote

    def _string(self, char: str) -> None:
        if self._escaped:
            self._escaped = False
        elif char == "\\":
            self._escaped = True
        elif char == self._quote:
            self._quote = ""


def _overlap(text: str, marker: str) -> int:
    """Length of the longest end of ``text`` that begins ``marker``."""
    longest = min(len(marker) - 1, len(text))
    return next((size for size in range(longest, 0, -1) if text.endswith(marker[:size])), 0)
