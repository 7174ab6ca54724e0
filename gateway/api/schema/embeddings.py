"""Embeddings: OpenAI's request and response."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Raw, Struct


class EmbeddingRequest(Struct, frozen=True, kw_only=True):
    model: str
    input: str | Annotated[list[str | int | list[int]], Meta(min_length=1)]
    """One text, one list of token ids, or a list of either."""

    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1)] | None = None
    user: str | None = None
    keep_alive: float | str | None = None
    """Idle timeout until the next request: seconds or a duration; negative: never."""


class Embedding(Struct, frozen=True, kw_only=True):
    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str
    """Numbers, or the bytes of little-endian float32 in base64."""


class EmbeddingUsage(Struct, frozen=True, kw_only=True):
    prompt_tokens: int
    total_tokens: int


class EmbeddingList(Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: list[Raw]
    """Each an ``Embedding``."""
    model: str
    usage: EmbeddingUsage
