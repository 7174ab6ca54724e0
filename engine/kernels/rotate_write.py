"""From the projection of queries, keys and values to the KV cache in one launch: each head's norm, its
rotation, and what is cached in its slot."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from engine.blocks import BLOCK_SIZE
from engine.kernels.rounding import NormWeight, weighed

_HEADS = 8
"""That one program takes on."""


def rotate_write(
    mixed: torch.Tensor,
    rotation: tuple[torch.Tensor, torch.Tensor] | None,
    norm: tuple[torch.Tensor, torch.Tensor, float, NormWeight] | None,
    slots: torch.Tensor,
    layer: tuple[torch.Tensor, torch.Tensor],
    queries: torch.Tensor,
) -> None:
    """mixed [rows, heads + 2 x KV heads, size] → queries [rows, heads, size], and keys and values into
    ``layer``, where ``slots`` int64 [rows] has them; a negative one is of a row that is none.

    ``rotation``: cosines and signed sines [rows, 1, dim], as ``engine.models.rope.rotate`` takes them.
    ``norm``: of each head, the weights of queries and of keys, epsilon, and where it rounds."""
    rows, all_heads, size = mixed.shape
    heads, keys, values = queries.shape[1], *layer
    assert keys.stride() == values.stride()
    cos, sin = rotation or (mixed, mixed)
    query_weight, key_weight, eps, kind = norm or (mixed, mixed, 0.0, "wide")
    _rotate[(rows, triton.cdiv(all_heads, _HEADS))](
        mixed, cos, sin, query_weight, key_weight, slots, keys, values, queries,
        mixed.stride(0), mixed.stride(1), cos.stride(0), *keys.stride()[:3], queries.stride(0),
        queries.stride(1), eps, HEADS=heads, KV_HEADS=keys.shape[2], SIZE=size,
        TILE=triton.next_power_of_2(size), TAKEN=_HEADS, DIM=cos.shape[-1] if rotation else 0,
        NORMED=norm is not None, KIND=kind, BLOCK=BLOCK_SIZE, num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip


@triton.jit
def _rotate(
    mixed: tl.tensor,
    cos: tl.tensor,
    sin: tl.tensor,
    query_weight: tl.tensor,
    key_weight: tl.tensor,
    slots: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    queries: tl.tensor,
    mixed_row: tl.tensor,
    mixed_head: tl.tensor,
    cos_row: tl.tensor,
    block_stride: tl.tensor,
    slot_stride: tl.tensor,
    head_stride: tl.tensor,
    query_row: tl.tensor,
    query_head: tl.tensor,
    eps: tl.float32,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    SIZE: tl.constexpr,
    TILE: tl.constexpr,
    TAKEN: tl.constexpr,
    DIM: tl.constexpr,
    NORMED: tl.constexpr,
    KIND: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Some heads of one row."""
    row = tl.program_id(0).to(tl.int64)
    head = (tl.program_id(1) * TAKEN + tl.arange(0, TAKEN))[:, None]
    at = tl.arange(0, TILE)[None, :]
    inside = (head < HEADS + 2 * KV_HEADS) & (at < SIZE)
    is_query, is_value = head < HEADS, head >= HEADS + KV_HEADS
    is_key = (head >= HEADS) & (head < HEADS + KV_HEADS)
    dtype = queries.dtype.element_ty
    own = mixed + row * mixed_row + head * mixed_head
    given = tl.load(own + at, mask=inside, other=0.0)
    partner = tl.where(at < DIM // 2, at + DIM // 2, at - DIM // 2)
    turning = inside & (at < DIM) & (is_query | is_key)
    x = given
    other = tl.load(own + partner, mask=turning, other=0.0)
    if NORMED:
        wide = given.to(tl.float32)
        share = (1 / tl.sqrt_rn(tl.sum(wide * wide, 1) / SIZE + eps))[:, None]
        weight = _pick(query_weight, key_weight, at, inside & is_query, inside & is_key)
        x = tl.where(is_value, given, weighed(wide * share, weight, dtype, KIND))
        weight = _pick(query_weight, key_weight, partner, turning & is_query, turning & is_key)
        other = weighed(other.to(tl.float32) * share, weight, dtype, KIND)
    if DIM > 0:
        c = tl.load(cos + row * cos_row + at, mask=at < DIM, other=0.0)
        s = tl.load(sin + row * cos_row + at, mask=at < DIM, other=0.0)
        straight = (x.to(tl.float32) * c.to(tl.float32)).to(c.dtype).to(tl.float32)
        across = (other.to(tl.float32) * s.to(tl.float32)).to(c.dtype).to(tl.float32)
        x = tl.where(turning, (straight + across).to(dtype), x)
    tl.store(queries + row * query_row + head * query_head + at, x, mask=inside & is_query)
    slot = tl.load(slots + row)
    if slot < 0:
        return
    place = slot // BLOCK * block_stride + slot % BLOCK * slot_stride + at
    kv_head = head - HEADS
    tl.store(keys + place + kv_head * head_stride, x, mask=inside & is_key)
    tl.store(values + place + (kv_head - KV_HEADS) * head_stride, x, mask=inside & is_value)


@triton.jit
def _pick(
    query_weight: tl.tensor, key_weight: tl.tensor, at: tl.tensor, of_query: tl.tensor, of_key: tl.tensor
) -> tl.tensor:
    """Each head's weight: only one of the two is there."""
    query = tl.load(query_weight + at, mask=of_query, other=0.0)
    return query + tl.load(key_weight + at, mask=of_key, other=0.0)
