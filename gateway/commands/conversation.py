"""A conversation with the models of a gateway."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Iterator
from typing import Any, NamedTuple

from gateway.commands import CommandError
from gateway.commands.client import Client, refusal


class Piece(NamedTuple):
    text: str
    reasoning: bool = False


class Conversation:
    """``model`` may change in the course of it."""

    def __init__(self, client: Client, model: str | None) -> None:
        self.client = client
        self.messages: list[dict[str, str]] = []
        self.model = self.find(model) if model else self.models()[0]

    def models(self) -> list[str]:
        """The names of all, in the gateway's order; there is one at least."""
        names = [model["id"] for model in self.client.get("/v1/models")["data"]]
        if not names:
            raise CommandError("the gateway serves no models")
        return names

    def find(self, model: str) -> str:
        """The name of a model, also by an alias. Raises CommandError."""
        return self.client.model_id(model)

    def ask(self, question: str) -> Generator[Piece, None, None]:
        """The answer as it comes. What has come when this ends, however it ends, is what the model said;
        if nothing has, the question was never asked."""
        self.messages.append({"role": "user", "content": question})
        said = ""
        body = {"model": self.model, "messages": self.messages, "stream": True}
        try:
            with self.client.stream("POST", "/v1/chat/completions", body) as lines:
                for piece in _pieces(lines):
                    said += "" if piece.reasoning else piece.text
                    yield piece
        finally:
            if said:
                self.messages.append({"role": "assistant", "content": said})
            else:
                self.messages.pop()


def _pieces(lines: Iterable[str]) -> Iterator[Piece]:
    """Of a stream of server-sent events."""
    for line in lines:
        if not line.startswith("data: ") or line == "data: [DONE]":
            continue
        event: dict[str, Any] = json.loads(line.removeprefix("data: "))
        if "error" in event:
            raise refusal(event["error"])
        for choice in event["choices"]:
            if text := choice["delta"].get("reasoning_content"):
                yield Piece(text, reasoning=True)
            if text := choice["delta"].get("content"):
                yield Piece(text)
