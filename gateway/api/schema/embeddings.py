"""Embeddings: OpenAI's request and response."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from gateway.api.schema.keep_alive import KeepAlive
from gateway.api.schema.prompts import Prompts, Truncation


class EmbeddingRequest(Struct, frozen=True, kw_only=True):
    model: str
    input: Prompts

    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1)] | None = None
    truncate_prompt_tokens: Truncation | None = None
    user: str | None = None
    keep_alive: KeepAlive | None = None


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
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
