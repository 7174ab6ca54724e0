"""A conversation with the models of a gateway, and what of it is shown while an answer comes."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from rich.console import Console
from rich.text import Text

from gateway.commands import CommandError
from gateway.commands.client import Client
from gateway.commands.waiting import Bar, Waiting

_CONTROLS: Final = dict.fromkeys({*range(32), *range(127, 160)} - {ord("\n"), ord("\t")})
"""A model's answer moves no cursor and sets no colours."""


class Piece(NamedTuple):
    text: str
    reasoning: bool = False


class Conversation:
    """``model`` may change in the course of it."""

    def __init__(self, client: Client, model: str | None) -> None:
        self._client = client
        self.messages: list[dict[str, str]] = []
        self.model = self.find(model) if model else self.models()[0]

    def models(self) -> list[str]:
        """The names of all, in the gateway's order; there is one at least."""
        names = [model["id"] for model in self._client.get("/v1/models")["data"]]
        if not names:
            raise CommandError("the gateway serves no models")
        return names

    def find(self, model: str) -> str:
        """The name itself, if there is such a model. Raises CommandError."""
        self._client.get(f"/v1/models/{quote(model, safe='')}")
        return model

    def ask(self, question: str) -> Generator[Piece, None, None]:
        """The answer as it comes. What has come when this ends, however it ends, is what the model said;
        if nothing has, the question was never asked."""
        self.messages.append({"role": "user", "content": question})
        said = ""
        body = {"model": self.model, "messages": self.messages, "stream": True}
        try:
            with self._client.stream("POST", "/v1/chat/completions", body) as lines:
                for piece in _pieces(lines):
                    said += "" if piece.reasoning else piece.text
                    yield piece
        finally:
            if said:
                self.messages.append({"role": "assistant", "content": said})
            else:
                self.messages.pop()

    def tell(self, question: str, console: Console) -> bool:
        """Print the answer as it comes, its reasoning dimmed; whether Ctrl-C has stopped it. In a terminal,
        what the model is doing is shown until it comes."""
        stopped = reasoning = False
        with ExitStack() as shown:
            if console.is_terminal:
                bar = shown.enter_context(Bar(console))
                shown.enter_context(Waiting(self._client, self.model, bar.show))
            answer = self.ask(question)
            try:
                for piece in answer:
                    shown.close()
                    if reasoning and not piece.reasoning:
                        console.print("\n")
                    reasoning = piece.reasoning
                    _print(console, piece.text, "dim" if reasoning else None)
            except KeyboardInterrupt:
                shown.close()
                _print(console, " (stopped)", "dim")
                stopped = True
            finally:
                answer.close()
        console.print()
        return stopped


def _print(console: Console, text: str, style: str | None) -> None:
    harmless = Text(text.translate(_CONTROLS), style or "")
    console.print(harmless, end="", soft_wrap=True)


def _pieces(lines: Iterable[str]) -> Iterator[Piece]:
    """Of a stream of server-sent events."""
    for line in lines:
        if not line.startswith("data: ") or line == "data: [DONE]":
            continue
        event: dict[str, Any] = json.loads(line.removeprefix("data: "))
        if "error" in event:
            raise CommandError(event["error"]["message"])
        for choice in event["choices"]:
            if text := choice["delta"].get("reasoning_content"):
                yield Piece(text, reasoning=True)
            if text := choice["delta"].get("content"):
                yield Piece(text)
