"""Log probabilities: OpenAI's two shapes, and vLLM's for prompts."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

LEAST: Final = -9999.0
"""JSON has no minus infinity."""


class TopLogprob(Struct, frozen=True, kw_only=True):
    token: str
    logprob: float
    bytes: list[int]
    """Since ``token`` cannot show half a character."""


class ChatTokenLogprob(TopLogprob, frozen=True, kw_only=True):
    top_logprobs: list[TopLogprob]


class ChatLogprobs(Struct, frozen=True, kw_only=True):
    content: list[ChatTokenLogprob]
    refusal: None = None


class TextLogprobs(Struct, frozen=True, kw_only=True):
    """Lists of the same length, one item a token."""

    tokens: list[str]
    token_logprobs: list[float | None]
    """None for the first token of a prompt."""
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]
    """Where the token begins in the choice's text, in characters."""


class PromptLogprob(Struct, frozen=True, kw_only=True):
    logprob: float
    rank: int
    decoded_token: str


PromptLogprobs = list[dict[str, PromptLogprob] | None]
"""A token a dictionary, by token id: the most likely ones and the prompt's own. None for the first."""
