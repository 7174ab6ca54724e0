"""Text completions: OpenAI's request and response; a chunk is a response with the next text."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from engine import FinishReason
from gateway.api.schema.generation import GenerationRequest, Usage, Wake
from gateway.api.schema.logprobs import PromptLogprobs, TextLogprobs
from gateway.api.schema.prompts import Prompts


class CompletionRequest(GenerationRequest, frozen=True, kw_only=True):
    prompt: Prompts

    max_tokens: Annotated[int, Meta(ge=0)] | None = None
    """0, with ``echo``: the prompt alone."""
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    best_of: Annotated[int, Meta(ge=0)] | None = None
    """Not more than ``n``: they would be made to be thrown away."""
    suffix: str | None = None


class CompletionChoice(Struct, frozen=True, kw_only=True):
    index: int
    text: str
    finish_reason: FinishReason | None = None
    logprobs: TextLogprobs | None = None
    prompt_logprobs: PromptLogprobs | UnsetType | None = UNSET
    """A chunk has no such key."""


class Completion(Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | UnsetType = UNSET
    """Absent from chunks without one: unlike a chat's it is never null."""
    wake: Wake | UnsetType = UNSET
