"""A step's keys and values on their way into the cache."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from engine.blocks import BLOCK_SIZE


def write(
    keys: torch.Tensor, values: torch.Tensor, slots: torch.Tensor, layer: tuple[torch.Tensor, torch.Tensor]
) -> None:
    """keys and values [rows, KV heads, size], which may be parts of wider rows, to the slots int64 [rows]; a
    negative one is of a row that is none."""
    rows, heads, size = keys.shape
    assert layer[0].stride() == layer[1].stride()
    _write[(rows, 2)](
        keys, values, slots, *layer, *keys.stride()[:2], *values.stride()[:2],
        *layer[0].stride()[:3], HEADS=heads, HEADS_TILE=triton.next_power_of_2(heads), SIZE=size,
        SIZE_TILE=triton.next_power_of_2(size), BLOCK=BLOCK_SIZE, num_warps=4,
        enable_fp_fusion=False,
    )  # fmt: skip


@triton.jit
def _write(
    keys: tl.tensor,
    values: tl.tensor,
    slots: tl.tensor,
    cached_keys: tl.tensor,
    cached_values: tl.tensor,
    key_row: tl.tensor,
    key_head: tl.tensor,
    value_row: tl.tensor,
    value_head: tl.tensor,
    block_stride: tl.tensor,
    slot_stride: tl.tensor,
    head_stride: tl.tensor,
    HEADS: tl.constexpr,
    HEADS_TILE: tl.constexpr,
    SIZE: tl.constexpr,
    SIZE_TILE: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """The keys of a row, or its values."""
    row = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + row)
    if slot < 0:
        return
    heads, at = tl.arange(0, HEADS_TILE)[:, None], tl.arange(0, SIZE_TILE)[None, :]
    inside = (heads < HEADS) & (at < SIZE)
    place = slot // BLOCK * block_stride + slot % BLOCK * slot_stride + heads * head_stride + at
    if tl.program_id(1) == 0:
        key = tl.load(keys + row * key_row + heads * key_head + at, mask=inside)
        tl.store(cached_keys + place, key, mask=inside)
    else:
        value = tl.load(values + row * value_row + heads * value_head + at, mask=inside)
        tl.store(cached_values + place, value, mask=inside)
