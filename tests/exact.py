"""Whether two answers to one prompt are the same, as far as arithmetic allows.

With other neighbours in the batch, or recomputed, a sum may be rounded differently. So tokens may part, but
only where the reference had the other token next to its own: within two bfloat16 steps of its best logit, or
1e-3 in float32. After they parted they are different texts, and nothing more can be said. Parting at a larger
gap is a wrong token; and nearly all answers are the same outright.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

LEAST_IDENTICAL = 0.99


@dataclass(frozen=True)
class Reference:
    """An answer, and per token the logits that it was chosen from: [tokens, vocabulary]."""

    token_ids: Sequence[int]
    logits: torch.Tensor


def closeness(best: float, dtype: Literal["bfloat16", "float32"]) -> float:
    """How near to the ``best`` logit another may lie and still be taken for it."""
    if dtype == "float32":
        return 1e-3
    # bfloat16 keeps 8 bits: between 2^e and 2^(e+1) numbers are 2^(e-7) apart.
    step = 2.0 ** (math.frexp(best)[1] - 1 - 7) if best else 0.0
    return 2 * step


def parting(one: Sequence[int], other: Sequence[int]) -> int | None:
    """Where two answers part; None when they are the same."""
    for index, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return index
    return None if len(one) == len(other) else min(len(one), len(other))


def wrong_token(
    reference: Reference, answer: Sequence[int], dtype: Literal["bfloat16", "float32"]
) -> str | None:
    """Why ``answer`` is not the greedy answer that ``reference`` is; None when it may pass for it."""
    at = parting(reference.token_ids, answer)
    if at is None:
        return None
    if at >= min(len(answer), len(reference.token_ids)):
        return f"{len(answer)} tokens instead of {len(reference.token_ids)}, the same until there"
    row = reference.logits[at].float()
    best, taken = row.max().item(), row[answer[at]].item()
    if best - taken <= closeness(best, dtype):
        return None
    return f"token {at} is {answer[at]}, {best - taken:.4f} below the best, {reference.token_ids[at]}"


def assert_same(
    references: Sequence[Reference],
    answers: Sequence[Sequence[int]],
    dtype: Literal["bfloat16", "float32"],
    *,
    identical: float = LEAST_IDENTICAL,
) -> None:
    """Every answer may pass for its reference, and so many are identical outright (one may always part)."""
    assert len(references) == len(answers)
    wrong = [
        f"answer {index}: {why}"
        for index, (reference, answer) in enumerate(zip(references, answers, strict=True))
        if (why := wrong_token(reference, answer, dtype))
    ]
    assert not wrong, "\n".join(wrong)
    pairs = zip(references, answers, strict=True)
    parted = sum(parting(reference.token_ids, answer) is not None for reference, answer in pairs)
    assert parted <= max(1, math.floor((1 - identical) * len(answers))), f"{parted} answers parted"
