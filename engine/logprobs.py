"""The log probability of chosen tokens, and the most likely ones beside them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from engine.types import TokenLogprob

_LISTED = 64
"""At least so many are looked for, as no neighbour's wish should decide which of equal ones are told."""


def token_logprobs(logits: torch.Tensor, token_ids: torch.Tensor, tops: Sequence[int]) -> list[TokenLogprob]:
    """logits float32 [rows, vocabulary], a token a row [rows], how many of the most likely each row wants."""
    chosen = logits.gather(1, token_ids.unsqueeze(1))
    total = logits.logsumexp(-1, keepdim=True)
    ranks = (logits > chosen).sum(-1) + 1
    values, ids = best(logits, max(_LISTED, *tops))
    likely = (values - total).tolist()
    columns = zip(
        token_ids.tolist(),
        (chosen - total).squeeze(1).tolist(),
        ranks.tolist(),
        ids.tolist(),
        likely,
        tops,
        strict=True,
    )
    return [
        TokenLogprob(
            token_id=token, logprob=own, rank=rank, top=tuple(zip(row_ids[:top], row[:top], strict=True))
        )
        for token, own, rank, row_ids, row, top in columns
    ]


def best(logits: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Values and ids [rows, count] of the highest logits, best first, the lower id first among equals."""
    if count >= logits.shape[-1]:
        return logits.sort(dim=-1, descending=True, stable=True)
    ids = logits.topk(count, sorted=False).indices.sort(-1).values
    values, order = logits.gather(1, ids).sort(dim=-1, descending=True, stable=True)
    return values, ids.gather(1, order)
