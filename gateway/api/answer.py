"""One choice of a chat completion as far as it has come: its text told apart, in OpenAI's terms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from msgspec import UNSET

from engine import Delta, FinishReason
from gateway.api.schema.chat import AnswerMessage, ChatFinishReason, ChoiceDelta
from gateway.api.schema.tools import AnswerToolCall, CalledFunction, FunctionDelta, ToolCallDelta
from gateway.chat.pieces import CallArguments, CallEnd, CallStart, Content, Piece, Reasoning
from gateway.chat.splitter import AnswerStyle, Splitter


@dataclass(slots=True)
class _Call:
    id: str
    name: str
    arguments: list[str] = field(default_factory=list)
    whole: bool = False

    def wire(self) -> AnswerToolCall:
        function = CalledFunction(name=self.name, arguments="".join(self.arguments))
        return AnswerToolCall(id=self.id, function=function)


class Answer:
    def __init__(
        self, style: AnswerStyle, *, call_id: Callable[[], str], parallel: bool, calls_only: bool
    ) -> None:
        """Without ``parallel`` calls after the first are dropped; with ``calls_only`` any content: it is of a
        call that the length has cut off."""
        self._splitter = Splitter(style) if style.splits else None
        self._call_id = call_id
        self._parallel = parallel
        self._calls_only = calls_only
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[_Call] = []
        self._dropping = False

    @property
    def reasoning_tokens(self) -> int:
        return self._splitter.reasoning_tokens if self._splitter else 0

    def take(self, delta: Delta) -> Iterator[ChoiceDelta]:
        """What is new."""
        if self._splitter is None:
            pieces: list[Piece] = [Content(delta.text)] if delta.text else []
        else:
            pieces = self._splitter.push(delta.text, len(delta.token_ids))
            if delta.finish_reason:
                pieces += self._splitter.end(cut=delta.finish_reason == "length")
        for piece in pieces:
            if change := self._take(piece):
                yield change

    def finish_reason(self, reason: FinishReason) -> ChatFinishReason:
        return "tool_calls" if reason == "stop" and self._told_calls(reason) else reason

    def message(self, prefix: str, reason: FinishReason) -> AnswerMessage:
        """The whole answer, which begins with ``prefix``."""
        text = prefix + "".join(self._content)
        calls = [call.wire() for call in self._told_calls(reason)]
        return AnswerMessage(
            content=None if not text and (calls or self._calls_only) else text,
            reasoning_content="".join(self._reasoning) if self._reasoning else UNSET,
            tool_calls=calls or UNSET,
        )

    def _told_calls(self, reason: FinishReason) -> list[_Call]:
        """Without one that the length has cut off, or a stop string though it must be whole."""
        broken_too = reason == "stop" and not self._calls_only
        return [call for call in self._calls if call.whole or broken_too]

    def _take(self, piece: Piece) -> ChoiceDelta | None:
        match piece:
            case Content() if self._calls_only:
                return None
            case Content(text):
                self._content.append(text)
                return ChoiceDelta(content=text)
            case Reasoning(text):
                self._reasoning.append(text)
                return ChoiceDelta(reasoning_content=text)
            case CallStart(name):
                return self._begin_call(name)
            case CallArguments(text) if not self._dropping:
                self._calls[-1].arguments.append(text)
                return self._change(FunctionDelta(arguments=text))
            case CallEnd() if not self._dropping:
                self._calls[-1].whole = True
        return None

    def _begin_call(self, name: str) -> ChoiceDelta | None:
        self._dropping = bool(self._calls) and not self._parallel
        if self._dropping:
            return None
        self._calls.append(_Call(self._call_id(), name))
        return self._change(FunctionDelta(name=name, arguments=""), id=self._calls[-1].id, type="function")

    def _change(self, function: FunctionDelta, **first: Any) -> ChoiceDelta:
        """Of the last call."""
        call = ToolCallDelta(index=len(self._calls) - 1, function=function, **first)
        return ChoiceDelta(tool_calls=[call])
