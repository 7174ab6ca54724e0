"""Splits an answer's text, as it comes, into content, reasoning and tool calls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gateway.chat.formats.tool_format import Schemas, ToolFormat
from gateway.chat.pieces import CallStart, Content, Piece, Reasoning
from gateway.chat.reader import Reader, Reading
from gateway.chat.thinking import Thinking


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerStyle:
    """What is to be told apart in an answer."""

    thinking: Thinking | None = None
    opened: bool = False
    """The prompt ends within the reasoning."""
    continued: bool = False
    """It ends within a text that goes on."""
    tools: ToolFormat | None = None
    schemas: Schemas | None = None

    @property
    def splits(self) -> bool:
        """False where all of the text is content."""
        return bool(self.thinking or self.tools)


class Splitter:
    """For one choice."""

    def __init__(self, style: AnswerStyle) -> None:
        self._reader = Reader()
        self._pieces = _split(style, self._reader)
        self._reasons = style.opened
        """Whether the last of the text was reasoning."""
        self.reasoning_tokens = 0

    def push(self, text: str, tokens: int) -> list[Piece]:
        """What ``text``, the next part, of so many tokens, makes certain."""
        self._reader.feed(text)
        pieces = self._certain()
        if pieces:
            self._reasons = isinstance(pieces[-1], Reasoning)
        if self._reasons:
            self.reasoning_tokens += tokens
        return pieces

    def end(self, *, cut: bool = False) -> list[Piece]:
        """There is no more text. A call that has been ``cut`` off in its head is dropped."""
        self._reader.end(cut=cut)
        return self._certain()

    def _certain(self) -> list[Piece]:
        pieces: list[Piece] = []
        for piece in self._pieces:
            if piece is None:
                break
            pieces.append(piece)
        return pieces


def _split(style: AnswerStyle, reader: Reader) -> Reading[None]:
    schemas = style.schemas or {}
    if style.thinking:
        yield from _read_thoughts(style.thinking, style, schemas, reader)
    if style.tools:
        yield from style.tools.read(reader, schemas)
    yield from reader.until((), Content)


def _read_thoughts(thinking: Thinking, style: AnswerStyle, schemas: Schemas, reader: Reader) -> Reading[None]:
    """Reasoning that a model has left without its end, to call a function, has the calls within."""
    thoughts: list[str] = []
    ended = False
    reading = thinking.read(reader, opened=style.opened, continued=style.continued)
    try:
        while True:
            piece = next(reading)
            if style.tools and isinstance(piece, Reasoning):
                thoughts.append(piece.text)
            yield piece
    except StopIteration as end:
        ended = end.value
    if style.tools and not ended and not reader.cut:
        yield from _calls_within("".join(thoughts), style.tools, schemas)


def _calls_within(text: str, tools: ToolFormat, schemas: Schemas) -> Iterator[Piece]:
    """Of functions that there are."""
    reader, known = Reader(), False
    reader.feed(text)
    reader.end()
    for piece in tools.read(reader, schemas):
        if isinstance(piece, CallStart):
            known = piece.name in schemas
        if piece and known and not isinstance(piece, Content):
            yield piece
