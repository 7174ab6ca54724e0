"""The next token of each sequence, from its logits.

Random numbers are keyed by (seed, position) alone, so an answer does not depend on its neighbours in the
batch, nor on whether its model slept in between. Repetition penalty: Keskar et al., 2019; top-p: Holtzman
et al., 2020; min-p: Nguyen et al., 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from engine.types import SamplingParams

_MASK64 = 2**64 - 1


@dataclass(frozen=True, slots=True)
class SampleRow:
    """How to sample one row. ``position`` counts the tokens before the one to be drawn."""

    params: SamplingParams
    seed: int
    position: int
    banned: tuple[int, ...] = ()
    """Token ids that may not come now."""
    seen: Sequence[int] = ()
    """Token ids that the repetition penalty falls on."""


def sample(logits: torch.Tensor, rows: Sequence[SampleRow]) -> list[int]:
    """logits float32 [rows, vocabulary] → a token id per row. Changes ``logits`` at banned and seen ids."""
    for index, row in enumerate(rows):
        if row.params.repetition_penalty != 1:
            _penalise(logits[index], row)
        if row.banned:
            logits[index, list(row.banned)] = -torch.inf
    chosen = logits.argmax(-1)
    # Apart by top-k, since which of equal logits come first depends on it.
    drawn: dict[int, list[int]] = {}
    for index, row in enumerate(rows):
        if row.params.temperature > 0:
            drawn.setdefault(min(row.params.top_k, logits.shape[-1]), []).append(index)
    for top_k, indices in drawn.items():
        chosen[indices] = _draw(logits[indices], top_k, [rows[index] for index in indices])
    return [int(token) for token in chosen.tolist()]


def _penalise(logits: torch.Tensor, row: SampleRow) -> None:
    """In place."""
    seen = torch.tensor(row.seen, dtype=torch.int64, device=logits.device)
    values, penalty = logits[seen], row.params.repetition_penalty
    logits[seen] = torch.where(values > 0, values / penalty, values * penalty)


def _draw(logits: torch.Tensor, top_k: int, rows: Sequence[SampleRow]) -> torch.Tensor:
    device = logits.device
    temperature = _column([row.params.temperature for row in rows], device)
    # Before dividing, so that a tiny temperature cannot overflow to infinity.
    logits = (logits - logits.amax(-1, keepdim=True)) / temperature.float().clamp_min(1e-6)
    values, ids = logits.topk(top_k) if top_k else logits.sort(descending=True)
    probs = values.softmax(-1)
    top_p = _column([row.params.top_p for row in rows], device)
    min_p = _column([row.params.min_p for row in rows], device)
    before = probs.cumsum(-1) - probs
    keep = (before < top_p) & (probs >= min_p * probs[:, :1])
    keep[:, 0] = True
    kept = (probs * keep).double().cumsum(-1)
    target = _column([uniform(row.seed, row.position) for row in rows], device) * kept[:, -1:]
    index = torch.searchsorted(kept, target, right=True).clamp_max(probs.shape[-1] - 1)
    return ids.gather(1, index).squeeze(1)


def _column(values: Sequence[float], device: torch.device) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, device=device).unsqueeze(1)


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that depends on nothing else (splitmix64, Steele et al., 2014)."""
    z = (seed * 0x9E3779B97F4A7C15 + position * 0xD1B54A32D192ED03 + 0x632BE59BD9B4E019) & _MASK64
    for _ in range(2):
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK64
        z ^= z >> 31
    return (z >> 11) / 2**53
