"""An answer on the screen, or in a pipe, as it comes."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Final

from rich.console import Console
from rich.text import Text

from gateway.commands.conversation import Conversation, Piece
from gateway.commands.waiting import Bar, Waiting
from gateway.commands.word_wrap import WordWrap

_CONTROLS: Final = dict.fromkeys({*range(32), *range(127, 160)} - {ord("\n"), ord("\t")})
"""A model's answer moves no cursor and sets no colours."""


def tell(conversation: Conversation, question: str, console: Console) -> bool:
    """Print the answer; whether Ctrl-C has stopped it. In a terminal, what the model is doing is shown until
    it comes."""
    page, stopped = _Page(console), False
    with ExitStack() as shown:
        if console.is_terminal:
            bar = shown.enter_context(Bar(console))
            shown.enter_context(Waiting(conversation.client, conversation.model, bar.show))
        answer = conversation.ask(question)
        try:
            for piece in answer:
                shown.close()
                page.write(piece)
        except KeyboardInterrupt:
            stopped = True
        finally:
            answer.close()
    page.end(" (stopped)" if stopped else "")
    return stopped


class _Page:
    """Reasoning is dim, and apart from what is said. In a terminal words stay whole."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._wrap = self._new_wrap()
        self._reasoning = False

    def write(self, piece: Piece) -> None:
        if self._reasoning and not piece.reasoning:
            self._flush()
            self._print("\n\n")
        self._reasoning = piece.reasoning
        text = piece.text.translate(_CONTROLS)
        self._print(self._wrap.feed(text) if self._wrap else text)

    def end(self, note: str) -> None:
        self._flush()
        self._reasoning = True
        self._print(note)
        self._console.print()

    def _flush(self) -> None:
        if self._wrap:
            self._print(self._wrap.flush())
            self._wrap = self._new_wrap()

    def _new_wrap(self) -> WordWrap | None:
        return WordWrap(self._console.width) if self._console.is_terminal else None

    def _print(self, text: str) -> None:
        self._console.print(Text(text, "dim" if self._reasoning else ""), end="", soft_wrap=True)
