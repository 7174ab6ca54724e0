"""Tokens of a text and the text of tokens: vLLM's requests and answers."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from gateway.api.schema.chat import Message
from gateway.api.schema.tools import Tool


class TokenizeRequest(Struct, frozen=True, kw_only=True):
    """Of a text, or of a conversation as the model's chat template writes it."""

    model: str | None = None
    """Needed where several are served."""
    prompt: str | None = None
    messages: Annotated[list[Message], Meta(min_length=1)] | None = None
    add_special_tokens: bool | None = None
    """Beside those that a template writes. By default a text has them, a conversation has not."""
    return_token_strs: bool | None = None

    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    tools: list[Tool] | None = None


class TokenizeResponse(Struct, frozen=True, kw_only=True):
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None
    """As the vocabulary spells them, where asked for."""


class DetokenizeRequest(Struct, frozen=True, kw_only=True):
    model: str | None = None
    tokens: list[int]


class DetokenizeResponse(Struct, frozen=True, kw_only=True):
    prompt: str
