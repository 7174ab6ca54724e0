"""The next token of each row in one launch, without sorting: the least weight that top-k and top-p keep is
found bit by bit, as positive floats are ordered like their bits (radix select, after Knuth, 1973)."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

_TILE = 4096
_ONE = 0x3F800000
"""The bits of 1, which is the greatest weight."""
_LEAST_TEMPERATURE = 1e-6


def choose(logits: torch.Tensor, settings: torch.Tensor, out: torch.Tensor) -> None:
    """logits float32 [rows, vocabulary] → out int64 [rows]. ``settings`` float32 [rows, 5]: temperature, 0
    for the most likely token; top-k, 0 for all; top-p of what that leaves; min-p, of the best one's
    probability; and a number in [0, 1) that draws."""
    rows, vocabulary = logits.shape
    _choose[(rows,)](
        logits, settings, out, logits.stride(0), vocabulary, LEAST=_LEAST_TEMPERATURE, ONE=_ONE,
        TILE=min(_TILE, triton.next_power_of_2(vocabulary)), num_warps=8, enable_fp_fusion=False,
    )  # fmt: skip


@triton.jit
def _choose(
    logits: tl.tensor,
    settings: tl.tensor,
    out: tl.tensor,
    row_stride: tl.tensor,
    vocabulary: tl.tensor,
    LEAST: tl.constexpr,
    ONE: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    own, setting = logits + row * row_stride, settings + row * 5
    temperature, top_k, top_p = tl.load(setting), tl.load(setting + 1), tl.load(setting + 2)
    best, best_at = _best(own, vocabulary, TILE)
    if temperature == 0:
        tl.store(out + row, best_at.to(tl.int64))
        return
    temperature = tl.maximum(temperature, LEAST)
    least = tl.full([], 0, tl.int32)
    if top_k > 0:
        least = _search(own, vocabulary, best, temperature, least, top_k, ONE, False, TILE)
    if top_p < 1:
        mass = _mass(own, vocabulary, best, temperature, least, TILE)
        least = _search(own, vocabulary, best, temperature, least, top_p * mass, ONE, True, TILE)
    least = tl.maximum(least, tl.load(setting + 3).to(tl.int32, bitcast=True))
    least = tl.minimum(least, ONE)
    mass = _mass(own, vocabulary, best, temperature, least, TILE)
    drawn = _draw(own, vocabulary, best, temperature, least, tl.load(setting + 4) * mass, TILE)
    tl.store(out + row, drawn.to(tl.int64))


@triton.jit
def _best(own: tl.tensor, vocabulary: tl.tensor, TILE: tl.constexpr) -> tl.tensor:
    """The greatest logit, and where the first one of it is."""
    best, best_at = tl.full([], -float("inf"), tl.float32), tl.full([], 0, tl.int32)
    for start in range(0, vocabulary, TILE):
        ids = start + tl.arange(0, TILE)
        found = tl.load(own + ids, mask=ids < vocabulary, other=-float("inf"))
        high = tl.max(found, 0)
        first = tl.min(tl.where(found == high, ids, vocabulary), 0)
        best_at = tl.where(high > best, first, best_at)
        best = tl.maximum(best, high)
    return best, best_at


@triton.jit
def _mass(
    own: tl.tensor,
    vocabulary: tl.tensor,
    best: tl.tensor,
    temperature: tl.tensor,
    least: tl.tensor,
    TILE: tl.constexpr,
) -> tl.tensor:
    """The sum of the weights that have at least these bits. A weight is a probability but for a factor: 1 for
    the best token's."""
    mass = tl.full([], 0.0, tl.float32)
    for start in range(0, vocabulary, TILE):
        ids = start + tl.arange(0, TILE)
        found = tl.load(own + ids, mask=ids < vocabulary, other=-float("inf"))
        weights = tl.exp((found - best) / temperature)
        mass += tl.sum(tl.where(weights.to(tl.int32, bitcast=True) >= least, weights, 0.0), 0)
    return mass


@triton.jit
def _search(
    own: tl.tensor,
    vocabulary: tl.tensor,
    best: tl.tensor,
    temperature: tl.tensor,
    least: tl.tensor,
    wanted: tl.tensor,
    ONE: tl.constexpr,
    BY_MASS: tl.constexpr,
    TILE: tl.constexpr,
) -> tl.tensor:
    """The greatest bits, not below ``least``, so that what is kept is still as much as wanted: in mass, or in
    number."""
    bits = tl.full([], 0, tl.int32)
    for step in range(30):
        trial = bits | (1 << (29 - step))
        much = tl.full([], 0.0, tl.float32)
        for start in range(0, vocabulary, TILE):
            ids = start + tl.arange(0, TILE)
            found = tl.load(own + ids, mask=ids < vocabulary, other=-float("inf"))
            weights = tl.exp((found - best) / temperature)
            kept = weights.to(tl.int32, bitcast=True) >= tl.maximum(trial, least)
            much += tl.sum(tl.where(kept, weights if BY_MASS else 1.0, 0.0), 0)
        bits = tl.where((much >= wanted) & (trial <= ONE), trial, bits)
    return tl.maximum(bits, least)


@triton.jit
def _draw(
    own: tl.tensor,
    vocabulary: tl.tensor,
    best: tl.tensor,
    temperature: tl.tensor,
    least: tl.tensor,
    target: tl.tensor,
    TILE: tl.constexpr,
) -> tl.tensor:
    """The first token with which the kept weights, added up by token id, are above the target."""
    before = tl.full([], 0.0, tl.float32)
    drawn, last = tl.full([], -1, tl.int32), tl.full([], 0, tl.int32)
    for start in range(0, vocabulary, TILE):
        ids = start + tl.arange(0, TILE)
        found = tl.load(own + ids, mask=ids < vocabulary, other=-float("inf"))
        weights = tl.exp((found - best) / temperature)
        kept = (weights.to(tl.int32, bitcast=True) >= least) & (weights > 0)
        weights = tl.where(kept, weights, 0.0)
        above = kept & (before + tl.cumsum(weights, 0) > target)
        first = tl.min(tl.where(above, ids, vocabulary), 0)
        drawn = tl.where((drawn < 0) & (first < vocabulary), first, drawn)
        last = tl.maximum(last, tl.max(tl.where(kept, ids, 0), 0))
        before += tl.sum(weights, 0)
    # Sums in another order may end a little lower than the target.
    return tl.where(drawn < 0, last, drawn)
