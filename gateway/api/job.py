"""What an endpoint makes of a request that it has found good: what is left is to lease, generate, send."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from msgspec import Struct

from engine import Delta, Engine, FinishReason, GenerateRequest, TokenLogprob
from gateway.api.schema.generation import ChunkUsage, StreamOptions, Usage


@dataclass(slots=True)
class Choice:
    """One choice of an answer that is not streamed, as far as it has come."""

    deltas: list[Delta] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(delta.text for delta in self.deltas)

    @property
    def finish_reason(self) -> FinishReason:
        return (self.deltas[-1].finish_reason if self.deltas else None) or "stop"

    @property
    def prompt_logprobs(self) -> Sequence[TokenLogprob | None] | None:
        return self.deltas[0].prompt_logprobs if self.deltas else None


@dataclass(frozen=True, slots=True)
class Heading:
    """What the whole answer and each of its chunks begin with."""

    id: str
    created: int
    model: str

    @classmethod
    def of(cls, kind: str, model: str) -> Heading:
        return cls(f"{kind}-{uuid.uuid4().hex}", int(time.time()), model)


class AnswerFormat(Protocol):
    """The wire shape of one answer."""

    def opening(self, usage: ChunkUsage) -> Iterable[Struct]:
        """Chunks that come before the first token."""

    def chunks(self, delta: Delta, usage: ChunkUsage) -> Iterable[Struct]: ...

    def usage_chunk(self, usage: Usage) -> Struct: ...

    def whole(self, choices: list[Choice], usage: Usage) -> Struct: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A request that has been found good, ready for the engine: one of ``requests`` for each prompt, all
    with the same number of choices."""

    model: str
    engine: Engine
    """What it was made with: its token ids and grammars are of no other."""
    requests: tuple[GenerateRequest, ...]
    format: AnswerFormat
    stream_options: StreamOptions
    keep_alive: float | None

    @property
    def n(self) -> int:
        """Choices of each prompt."""
        return self.requests[0].n

    @property
    def logprobs(self) -> int:
        """How many are told of each token."""
        return _entries(self.requests[0].sampling.logprobs)

    @property
    def prompt_logprobs(self) -> int:
        """How many are told of each token of a prompt, by all of its choices together."""
        return self.n * _entries(self.requests[0].sampling.prompt_logprobs)


def _entries(top: int | None) -> int:
    """The most likely and the token itself, if they are asked for."""
    return 0 if top is None else top + 1
