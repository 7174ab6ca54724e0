"""The shapes of a chat completion, whole and in chunks."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from engine import Delta
from gateway.api.answer import Answer
from gateway.api.job import Choice, Heading
from gateway.api.logprobs import ChatLogprobWriter
from gateway.api.prompt_logprobs import wire_prompt_logprobs
from gateway.api.raw import encoded
from gateway.api.schema.chat import (
    ChatChoice,
    ChatCompletion,
    ChatCompletionChunk,
    ChoiceDelta,
    ChunkChoice,
)
from gateway.api.schema.generation import ChunkUsage, CompletionTokensDetails, Usage, Wake
from gateway.api.spelling import Spelling


def wake_chunk(heading: Heading, wake: Wake, usage: ChunkUsage) -> ChatCompletionChunk:
    return ChatCompletionChunk(
        id=heading.id, created=heading.created, model=heading.model, choices=[], usage=usage, wake=wake
    )


class ChatFormat:
    def __init__(
        self,
        heading: Heading,
        spelling: Spelling,
        answers: list[Answer],
        *,
        prefix: str = "",
        logprobs: ChatLogprobWriter | None = None,
    ) -> None:
        """``answers``: one a choice. ``prefix``: what their contents begin with."""
        self._heading = heading
        self._spelling = spelling
        self._answers = answers
        self._prefix = prefix
        self._logprobs = logprobs

    def opening(self, usage: ChunkUsage) -> Iterator[ChatCompletionChunk]:
        first = ChoiceDelta(role="assistant", content="")
        prefix = [ChoiceDelta(content=self._prefix)] if self._prefix else []
        for index in range(len(self._answers)):
            for delta in (first, *prefix):
                yield self._chunk(ChunkChoice(index=index, delta=delta), usage)

    def chunks(self, delta: Delta, usage: ChunkUsage) -> Iterator[ChatCompletionChunk]:
        answer = self._answers[delta.index]
        changes = list(answer.take(delta))
        logprobs = self._logprobs.take(delta) if self._logprobs else None
        if not changes and logprobs and logprobs.content:
            changes = [ChoiceDelta(content="")]
        for change in changes:
            yield self._chunk(ChunkChoice(index=delta.index, delta=change, logprobs=logprobs), usage)
            logprobs = None
        if delta.finish_reason is not None:
            reason = answer.finish_reason(delta.finish_reason)
            finish = ChunkChoice(index=delta.index, delta=ChoiceDelta(), finish_reason=reason)
            yield self._chunk(finish, usage)

    def usage_chunk(self, usage: Usage) -> ChatCompletionChunk:
        return self._chunk(None, usage)

    def whole(self, choices: list[Choice], usage: Usage) -> ChatCompletion:
        wired = [
            encoded(self._whole_choice(index, answer, choice))
            for index, (answer, choice) in enumerate(zip(self._answers, choices, strict=True))
        ]
        return ChatCompletion(
            id=self._heading.id,
            created=self._heading.created,
            model=self._heading.model,
            choices=wired,
            usage=self._detailed(usage),
            prompt_logprobs=wire_prompt_logprobs(self._spelling, choices[0].prompt_logprobs),
        )

    def _whole_choice(self, index: int, answer: Answer, choice: Choice) -> ChatChoice:
        for delta in choice.deltas:
            for _ in answer.take(delta):
                pass
        return ChatChoice(
            index=index,
            message=answer.message(self._prefix, choice.finish_reason),
            finish_reason=answer.finish_reason(choice.finish_reason),
            logprobs=self._logprobs.whole(choice.deltas) if self._logprobs else None,
        )

    def _chunk(self, choice: ChunkChoice | None, usage: ChunkUsage) -> ChatCompletionChunk:
        return ChatCompletionChunk(
            id=self._heading.id,
            created=self._heading.created,
            model=self._heading.model,
            choices=[] if choice is None else [choice],
            usage=self._detailed(usage) if isinstance(usage, Usage) else usage,
        )

    def _detailed(self, usage: Usage) -> Usage:
        reasoning = sum(answer.reasoning_tokens for answer in self._answers)
        return replace(usage, completion_tokens_details=CompletionTokensDetails(reasoning_tokens=reasoning))
