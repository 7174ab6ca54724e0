"""What a conversation remembers, and what of an answer reaches the terminal."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
from rich.console import Console

from gateway.commands import CommandError
from gateway.commands.client import Client
from gateway.commands.conversation import Conversation, Piece
from gateway.commands.telling import tell


class Gateway:
    """Answers with the events it is given."""

    def __init__(self, *events: dict[str, Any] | type[BaseException]) -> None:
        self.asked: list[dict[str, Any]] = []
        self._events = events

    def get(self, path: str) -> Any:
        return {"data": [{"id": "a"}, {"id": "b"}]}

    def model_id(self, name: str) -> str:
        return {"alias": "b"}.get(name, name)

    @contextmanager
    def stream(self, method: str, path: str, body: dict[str, Any]) -> Iterator[Iterator[str]]:
        self.asked.append(json.loads(json.dumps(body)))
        yield self._lines()

    def _lines(self) -> Iterator[str]:
        for event in self._events:
            if isinstance(event, type):
                raise event
            yield ": a comment"
            yield f"data: {json.dumps(event)}"
            yield ""
        yield "data: [DONE]"


def delta(**content: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": content}]}


def conversation(*events: dict[str, Any] | type[BaseException]) -> tuple[Conversation, Gateway]:
    gateway = Gateway(*events)
    return Conversation(cast(Client, gateway), None), gateway


def told(talk: Conversation) -> tuple[str, bool]:
    console = Console(file=io.StringIO(), width=20)
    stopped = tell(talk, "hello", console)
    return cast(io.StringIO, console.file).getvalue(), stopped


def test_the_next_question_comes_with_all_that_was_said_whatever_the_model() -> None:
    talk, gateway = conversation(delta(role="assistant"), delta(content="Good "), delta(content="day."))
    assert [piece.text for piece in talk.ask("hello")] == ["Good ", "day."]
    talk.model = talk.find("alias")
    list(talk.ask("and you?"))
    assert [(body["model"], len(body["messages"])) for body in gateway.asked] == [("a", 1), ("b", 3)]
    assert gateway.asked[1]["messages"][1] == {"role": "assistant", "content": "Good day."}


def test_what_came_before_ctrl_c_was_said() -> None:
    talk, _ = conversation(delta(content="Good "), KeyboardInterrupt)
    assert told(talk) == ("Good  (stopped)\n", True)
    assert [message["content"] for message in talk.messages] == ["hello", "Good "]


def test_what_got_no_answer_was_never_asked() -> None:
    talk, _ = conversation(KeyboardInterrupt)
    assert told(talk) == (" (stopped)\n", True)
    assert talk.messages == []
    error = {"message": "no room", "type": "server_error", "param": None, "code": "wait_timeout"}
    talk, _ = conversation({"error": error})
    with pytest.raises(CommandError, match="no room") as raised:
        told(talk)
    assert raised.value.told == error
    assert talk.messages == []


def test_reasoning_is_apart_and_not_part_of_what_was_said() -> None:
    talk, _ = conversation(delta(reasoning_content="Hm."), delta(content="Yes."))
    assert told(talk) == ("Hm.\n\nYes.\n", False)
    assert talk.messages[-1]["content"] == "Yes."
    assert list(talk.ask("again")) == [Piece("Hm.", reasoning=True), Piece("Yes.")]


def test_an_answer_is_text_whatever_is_in_it() -> None:
    """No wrapping, no markup, no escape sequences."""
    talk, _ = conversation(delta(content="[bold]a line \x1b]0;title\x07of a model's\n\x9b31mwords :smile:"))
    assert told(talk) == ("[bold]a line ]0;titleof a model's\n31mwords :smile:\n", False)
