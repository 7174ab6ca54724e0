"""Log probabilities of prompts, in vLLM's shape: the same for all choices, and there may be very many."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from engine import TokenLogprob
from gateway.api.raw import encoded, encoded_each
from gateway.api.schema.logprobs import LEAST, PromptLogprob, PromptLogprobs
from gateway.api.spelling import Spelling
from gateway.errors import InvalidRequest

MOST: Final = 1_000_000
"""Entries of one answer: choices x tokens x (most likely ones + the token itself)."""


def check_prompt_logprobs(
    top: int | None, *, tokens: int, n: int = 1, param: str = "prompt_logprobs"
) -> None:
    """Raises InvalidRequest for an answer of a size that nobody can have meant. ``top``: most likely ones of
    each of the ``tokens`` of all prompts, if asked for; told ``n`` times, once a choice."""
    if top is None:
        return
    once = tokens * (top + 1)
    if n * once > MOST:
        raise InvalidRequest(
            f"{n} x {tokens} tokens of prompts with {top + 1} log probabilities each are more than the"
            f" {MOST} that are told in one answer",
            param="n" if once <= MOST else param,
        )


def wire_prompt_logprobs(
    spelling: Spelling, logprobs: Iterable[TokenLogprob | None] | None
) -> PromptLogprobs | None:
    """Encoded, token by token."""
    if logprobs is None:
        return None
    entries = (_by_token_id(spelling, logprob) if logprob else None for logprob in logprobs)
    return encoded(encoded_each(entries))


def _by_token_id(spelling: Spelling, logprob: TokenLogprob) -> dict[str, PromptLogprob]:
    ranked = [(token_id, value, rank) for rank, (token_id, value) in enumerate(logprob.top, start=1)]
    return {
        str(token_id): PromptLogprob(
            logprob=max(value, LEAST), rank=rank, decoded_token=spelling.text(token_id)
        )
        for token_id, value, rank in (*ranked, (logprob.token_id, logprob.logprob, logprob.rank))
    }
