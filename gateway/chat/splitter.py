"""Splits an answer's text, as it comes, into content, reasoning and tool calls."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.chat.formats.tool_format import Schemas, ToolFormat
from gateway.chat.pieces import Content, Piece, Reasoning
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
    if style.thinking:
        yield from style.thinking.read(reader, opened=style.opened, continued=style.continued)
    if style.tools:
        yield from style.tools.read(reader, style.schemas or {})
    yield from reader.until((), Content)
