"""What the attention kernels share: sizes of tiles, and how one tile of keys and values is taken in.

A row's arithmetic is fixed by its own position: tiles of slots begin at multiples of their size, all their
numbers go through the same instructions, and a tile of which a row sees nothing leaves its sums as they are,
to the bit. So neither neighbours nor cuts of a prompt change what a row is told.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

LOG2_E = 1.4426950408889634


class Tiles(NamedTuple):
    rows: int
    """Of a prompt, that attend together."""
    slots: int
    """Whose keys and values are looked at in one go."""
    padded: int
    """The head size, as the power of two that a product needs."""


def tiles_for(size: int, dtype: torch.dtype) -> Tiles:
    """As much as shared memory holds, from a head's size and dtype alone; of float32, which has no products
    of tiles but by single numbers, as much as registers hold."""
    padded = max(16, triton.next_power_of_2(size))
    if dtype == torch.float32:
        return Tiles(32, 16, padded)
    width = padded * dtype.itemsize
    return Tiles(128, 64, padded) if width <= 256 else Tiles(64, 32, padded)


def precision(dtype: torch.dtype) -> str:
    """Of products: float32 is not to be shortened to TF32."""
    return "ieee" if dtype == torch.float32 else "tf32"


@triton.jit
def places(
    table: tl.tensor,
    positions: tl.tensor,
    wanted: tl.tensor,
    block_stride: tl.tensor,
    slot_stride: tl.tensor,
    BLOCK: tl.constexpr,
) -> tl.tensor:
    """Where positions lie in a layer's keys, and in its values, int64; only ``wanted`` ones are looked up."""
    blocks = tl.load(table + positions // BLOCK, mask=wanted, other=0).to(tl.int64)
    return blocks * block_stride + positions % BLOCK * slot_stride


@triton.jit
def take_in(
    queries: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    seen: tl.tensor,
    most: tl.tensor,
    total: tl.tensor,
    mixed: tl.tensor,
    scale: tl.tensor,
    cap: tl.tensor,
    CAPPED: tl.constexpr,
    PRECISION: tl.constexpr,
) -> tl.tensor:
    """One more tile of slots for ``queries`` [rows, size], by the online softmax (Milakov and Gimelshein,
    2018): keys [size, slots], values [slots, size], seen [rows, slots]. ``scale`` is to base 2, or with a cap
    that of its tanh. Changed are each row's greatest score, its sum of weights, and its weighed values."""
    scores = tl.dot(queries, keys, input_precision=PRECISION) * scale
    if CAPPED:
        scores = (2 * tl.sigmoid(2 * scores) - 1) * cap
    scores = tl.where(seen, scores, -float("inf"))
    higher = tl.maximum(most, tl.max(scores, 1))
    level = tl.where(higher == -float("inf"), 0.0, higher)
    weights = tl.exp2(scores - level[:, None])
    kept = tl.exp2(most - level)
    total = total * kept + tl.sum(weights, 1)
    mixed = mixed * kept[:, None]
    mixed = tl.dot(weights.to(values.dtype), values, mixed, input_precision=PRECISION)
    return higher, total, mixed
