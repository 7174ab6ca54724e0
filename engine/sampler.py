"""The next token of each sequence, from its logits.

Random numbers are keyed by (seed, position) alone and each row's arithmetic is its own, so an answer does not
depend on its neighbours in the batch, nor on whether its model slept in between. No step sorts the vocabulary
but for a row whose nucleus is very wide. Top-p: Holtzman et al., 2020; min-p: Nguyen et al., 2024.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.nn.functional import pad

from engine.grammar import Matcher, allowed_tokens
from engine.logprobs import best, token_logprobs
from engine.penalties import History, penalise
from engine.types import SamplingParams, TokenLogprob

_Way = Callable[[torch.Tensor, Sequence["SampleRow"]], torch.Tensor]

_MASK64 = 2**64 - 1
_FIRST = 1024
_THEN = 16384
"""So many of the most likely tokens are looked at, until they hold the nucleus; at last the whole vocabulary
is sorted."""
_BLOCK = 64
"""Tokens whose weights are summed before the blocks are; divides most vocabularies."""


@dataclass(frozen=True, slots=True)
class SampleRow:
    """How to sample one row. ``position`` counts the tokens before the one to be drawn."""

    params: SamplingParams
    seed: int
    position: int
    history: History
    matcher: Matcher | None = None
    banned: tuple[int, ...] = ()
    """Token ids that may not come now, unless the grammar has no other."""

    @property
    def plain(self) -> bool:
        """Whether its logits and ``choice`` alone decide on the token, and that is all that is asked for."""
        changed = self.matcher or self.banned or self.history.matters
        return not changed and self.params.logprobs is None


class Sampled(NamedTuple):
    token_id: int
    logprob: TokenLogprob | None
    """Where the row asks for it."""


def sample(logits: torch.Tensor, rows: Sequence[SampleRow]) -> list[Sampled]:
    """logits float32 [rows, vocabulary] → a token per row. Changes ``logits``."""
    asked = [index for index, row in enumerate(rows) if row.params.logprobs is not None]
    raw = logits[asked] if asked else None
    penalise(logits, [row.history for row in rows])
    _forbid(logits, rows)
    chosen = _choose(logits, rows)
    logprobs: dict[int, TokenLogprob] = {}
    if raw is not None:
        tops = [rows[index].params.logprobs or 0 for index in asked]
        logprobs = dict(zip(asked, token_logprobs(raw, chosen[asked], tops), strict=True))
    return [Sampled(token, logprobs.get(index)) for index, token in enumerate(chosen.tolist())]


def _forbid(logits: torch.Tensor, rows: Sequence[SampleRow]) -> None:
    """What grammars rule out and what is banned, in place."""
    matched = [(index, row.matcher) for index, row in enumerate(rows) if row.matcher]
    if matched:
        indices = [index for index, _ in matched]
        allowed = allowed_tokens([matcher for _, matcher in matched], logits.shape[-1]).to(logits.device)
        logits[indices] = logits[indices].where(allowed, -torch.inf)
    for index, row in enumerate(rows):
        if row.banned:
            banned = torch.tensor(row.banned, device=logits.device)
            before = logits[index, banned]
            logits[index, banned] = -torch.inf
            if row.matcher and logits[index].max() == -torch.inf:
                logits[index, banned] = before


def _choose(logits: torch.Tensor, rows: Sequence[SampleRow]) -> torch.Tensor:
    """A token id per row, int64 [rows]."""
    if logits.is_cuda:
        return choose_in_one_launch(logits, rows)
    ways: dict[_Way, list[int]] = {}
    for index, row in enumerate(rows):
        ways.setdefault(_way(row.params), []).append(index)
    if len(ways) == 1:
        return next(iter(ways))(logits, rows)
    chosen = torch.empty(len(rows), dtype=torch.int64, device=logits.device)
    for way, indices in ways.items():
        chosen[indices] = way(logits[indices], [rows[index] for index in indices])
    return chosen


def choose_in_one_launch(logits: torch.Tensor, rows: Sequence[SampleRow]) -> torch.Tensor:
    """See ``engine.kernels.choose``."""
    from engine.kernels.choose import choose

    settings = torch.tensor([choice(row) for row in rows], dtype=torch.float32).to(logits.device)
    chosen = torch.empty(len(rows), dtype=torch.int64, device=logits.device)
    choose(logits, settings, chosen)
    return chosen


def choice(row: SampleRow) -> tuple[float, float, float, float, float]:
    """Settings as ``engine.kernels.choose`` takes them."""
    params = row.params
    return params.temperature, params.top_k, params.top_p, params.min_p, uniform(row.seed, row.position)


def _way(params: SamplingParams) -> _Way:
    if params.temperature == 0:
        return _most_likely
    return _draw_from_nucleus if params.top_k or params.top_p < 1 else _draw_from_all


def _most_likely(logits: torch.Tensor, rows: Sequence[SampleRow]) -> torch.Tensor:
    return logits.argmax(-1)


def _draw_from_all(logits: torch.Tensor, rows: Sequence[SampleRow]) -> torch.Tensor:
    """By the block of the vocabulary, then within it: nothing as long as the vocabulary is summed up."""
    weights = _weights(logits, logits, rows)
    if any(row.params.min_p for row in rows):
        weights *= weights >= _column([row.params.min_p for row in rows], logits.device).float()
    blocks = _in_blocks(weights)
    sums = blocks.sum(-1).double()
    ends = sums.cumsum(-1)
    target = _uniforms(rows, logits.device) * ends[:, -1:]
    block = _first_above(ends, target)
    # Not below 0, where rounding may put it and a token without weight would be the first above.
    target = (target - (ends - sums).gather(1, block)).clamp_min_(0)
    inside = blocks[torch.arange(len(rows), device=logits.device), block.squeeze(1)].double().cumsum(-1)
    return (block * _BLOCK + _first_above(inside, target)).squeeze(1)


def _draw_from_nucleus(logits: torch.Tensor, rows: Sequence[SampleRow]) -> torch.Tensor:
    total = _in_blocks(_weights(logits, logits, rows)).sum(-1).double().sum(-1, keepdim=True)
    chosen, enough = _draw_from_best(logits, _FIRST, total, rows)
    for row in (~enough).nonzero().flatten().tolist():
        only = slice(row, row + 1)
        for count in (_THEN, logits.shape[-1]):
            chosen[only], enough = _draw_from_best(logits[only], count, total[only], rows[only])
            if enough:
                break
    return chosen


def _draw_from_best(
    logits: torch.Tensor, count: int, total: torch.Tensor, rows: Sequence[SampleRow]
) -> tuple[torch.Tensor, torch.Tensor]:
    """From the ``count`` most likely: top-k, then top-p of what is left, then min-p of that, but one token at
    least. ``total``: the weight of all. Also whether that many were enough, [rows]."""
    device = logits.device
    values, ids = best(logits, count)
    weights = _weights(values, logits, rows).double()
    top_k = _column([row.params.top_k or logits.shape[-1] for row in rows], device)
    top_p = _column([row.params.top_p for row in rows], device)
    min_p = _column([row.params.min_p for row in rows], device)
    weights *= torch.arange(values.shape[-1], device=device) < top_k
    summed = weights.cumsum(-1)
    total = torch.where(top_k < logits.shape[-1], summed[:, -1:], total)
    keep = (summed - weights < top_p * total) & (weights >= min_p)
    keep[:, 0] = True
    kept = (weights * keep).cumsum(-1)
    chosen = ids.gather(1, _first_above(kept, _uniforms(rows, device) * kept[:, -1:]))
    size = values.shape[-1]
    enough = (top_k <= size) | ((top_k >= logits.shape[-1]) & (summed[:, -1:] >= top_p * total))
    return chosen.squeeze(1), enough.squeeze(1)


def _weights(values: torch.Tensor, logits: torch.Tensor, rows: Sequence[SampleRow]) -> torch.Tensor:
    """Of ``values``, some of each row's logits: their probabilities but for a factor, 1 for the best."""
    temperature = _column([row.params.temperature for row in rows], logits.device).float().clamp_min(1e-6)
    # Before dividing, so that a tiny temperature cannot overflow to infinity.
    return (values - logits.amax(-1, keepdim=True)).div_(temperature).exp_()


def _in_blocks(weights: torch.Tensor) -> torch.Tensor:
    """[rows, vocabulary] → [rows, blocks, _BLOCK]"""
    missing = -weights.shape[-1] % _BLOCK
    whole = pad(weights, (0, missing)) if missing else weights
    return whole.view(len(weights), -1, _BLOCK)


def _first_above(cumulative: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Where a cumulative sum first exceeds the target, which rounding may have put at its end: [rows, 1]."""
    end = cumulative[:, -1:]
    return torch.searchsorted(cumulative, target.minimum(end.nextafter(torch.zeros_like(end))), right=True)


def _uniforms(rows: Sequence[SampleRow], device: torch.device) -> torch.Tensor:
    return _column([uniform(row.seed, row.position) for row in rows], device)


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
