"""What an endpoint makes of a request that it has found good: what is left is to lease, generate, send."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from msgspec import Struct

from engine import Delta, FinishReason, GenerateRequest
from gateway.api.schema.generation import ChunkUsage, StreamOptions, Usage


@dataclass(slots=True)
class Choice:
    """One choice of an answer that is not streamed, as far as it has come."""

    pieces: list[str] = field(default_factory=list)
    finish_reason: FinishReason = "stop"

    @property
    def text(self) -> str:
        return "".join(self.pieces)


class AnswerFormat(Protocol):
    """The wire shape of one answer."""

    def opening(self, usage: ChunkUsage) -> Iterable[Struct]:
        """Chunks that come before the first token."""

    def chunks(self, delta: Delta, usage: ChunkUsage) -> Iterable[Struct]: ...

    def usage_chunk(self, usage: Usage) -> Struct: ...

    def whole(self, choices: list[Choice], usage: Usage) -> Struct: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A request that has been found good, ready for the engine: one choice for each of ``requests``."""

    model: str
    requests: tuple[GenerateRequest, ...]
    format: AnswerFormat
    stream: bool
    stream_options: StreamOptions
    keep_alive: float | None
