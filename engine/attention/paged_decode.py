"""Attention of generated rows over paged keys and values, split along the sequence (Dao et al., 2023).

Each row's context is cut into pieces that are worked on at the same time and then merged by the logarithms of
their sums. How it is cut is told by the row's own length and the model's shape alone, so a row gets the same
bits in any company. Nothing is allocated and nothing waits for the host: what changes from step to step is
read from ``tables`` and ``contexts``, so a CUDA graph may hold the launches.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from engine.attention.plan import AttentionSpec
from engine.attention.tiles import LOG2_E, places, precision, take_in, tiles_for
from engine.blocks import BLOCK_SIZE

_LEAST_PIECE = 128
"""Slots; a multiple of all tiles."""
_PROGRAMS = 256
"""For one row, if it is long: about two for each multiprocessor of a large device."""


def most_pieces(kv_heads: int) -> int:
    """Into which a row's context is cut."""
    return max(4, min(64, _PROGRAMS // kv_heads))


def partial_results(
    rows: int, heads: int, kv_heads: int, size: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Room for ``decode``: values [rows, pieces, heads, size], and the logarithms of their sums."""
    shape = (rows, most_pieces(kv_heads), heads)
    return torch.empty(*shape, size, device=device), torch.empty(shape, device=device)


def decode(
    queries: torch.Tensor,
    layer: tuple[torch.Tensor, torch.Tensor],
    tables: torch.Tensor,
    contexts: torch.Tensor,
    spec: AttentionSpec,
    partial: tuple[torch.Tensor, torch.Tensor],
    out: torch.Tensor,
) -> None:
    """queries [rows, heads, size] → out, alike. ``tables`` int32 [rows, blocks], ``contexts`` int32 [rows]:
    the positions up to the row's own, 0 for a row that is none, whose result is 0."""
    rows, heads, size = queries.shape
    keys, values = layer
    assert keys.stride() == values.stride()
    kv_heads, group = keys.shape[2], heads // keys.shape[2]
    tiles, pieces = tiles_for(size, queries.dtype), most_pieces(kv_heads)
    mixed, logs = partial
    window = spec.window or 0
    scale = spec.scale * LOG2_E if spec.softcap is None else spec.scale / spec.softcap
    longest = tables.shape[1] * BLOCK_SIZE
    used = min(pieces, triton.cdiv(min(longest, window + _LEAST_PIECE) if window else longest, _LEAST_PIECE))
    _pieces[(rows, kv_heads, used)](
        queries, keys, values, tables, contexts, mixed, logs,
        queries.stride(0), queries.stride(1), *keys.stride()[:3],
        tables.stride(0), scale, (spec.softcap or 0.0) * LOG2_E, window,
        HEADS=heads, GROUP=group, GROUP_TILE=max(16, triton.next_power_of_2(group)), SIZE=size,
        SIZE_TILE=tiles.padded, SLOTS=tiles.slots, BLOCK=BLOCK_SIZE, PIECES=pieces, LEAST=_LEAST_PIECE,
        WINDOWED=spec.window is not None, CAPPED=spec.softcap is not None,
        PRECISION=precision(queries.dtype), num_warps=4, num_stages=2, enable_fp_fusion=False,
    )  # fmt: skip
    _merge[(rows, heads)](
        mixed, logs, contexts, out, out.stride(0), out.stride(1), window,
        HEADS=heads, SIZE=size, SIZE_TILE=tiles.padded, SLOTS=tiles.slots, PIECES=pieces,
        PIECES_TILE=triton.next_power_of_2(pieces), LEAST=_LEAST_PIECE, WINDOWED=spec.window is not None,
        num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip


@triton.jit
def _cut(
    context: tl.tensor,
    window: tl.tensor,
    SLOTS: tl.constexpr,
    PIECES: tl.constexpr,
    LEAST: tl.constexpr,
    WINDOWED: tl.constexpr,
) -> tl.tensor:
    """The first position that a row looks at, at a tile's beginning, and how many each piece takes."""
    first = context * 0
    if WINDOWED:
        first = tl.maximum(context - window, 0) // SLOTS * SLOTS
    each = tl.cdiv(tl.cdiv(context - first, PIECES), SLOTS) * SLOTS
    return first, tl.maximum(each, LEAST)


@triton.jit
def _pieces(
    queries: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    tables: tl.tensor,
    contexts: tl.tensor,
    mixed: tl.tensor,
    logs: tl.tensor,
    query_row: tl.tensor,
    query_head: tl.tensor,
    block_stride: tl.tensor,
    slot_stride: tl.tensor,
    head_stride: tl.tensor,
    table_row: tl.tensor,
    scale: tl.float32,
    cap: tl.float32,
    window: tl.tensor,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    GROUP_TILE: tl.constexpr,
    SIZE: tl.constexpr,
    SIZE_TILE: tl.constexpr,
    SLOTS: tl.constexpr,
    BLOCK: tl.constexpr,
    PIECES: tl.constexpr,
    LEAST: tl.constexpr,
    WINDOWED: tl.constexpr,
    CAPPED: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """One piece of one row, for the heads that share a KV head."""
    row, kv_head, piece = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    context = tl.load(contexts + row)
    first, each = _cut(context, window, SLOTS, PIECES, LEAST, WINDOWED)
    begin = first + piece * each
    end = tl.minimum(begin + each, context)
    if begin >= end:
        return
    group, sizes = tl.arange(0, GROUP_TILE), tl.arange(0, SIZE_TILE)
    heads = kv_head * GROUP + group
    whole = (group < GROUP)[:, None] & (sizes < SIZE)[None, :]
    query = tl.load(
        queries + row * query_row + heads[:, None] * query_head + sizes[None, :], mask=whole, other=0.0
    )
    keys += kv_head * head_stride
    values += kv_head * head_stride
    most = tl.full([GROUP_TILE], -float("inf"), tl.float32)
    total = tl.zeros([GROUP_TILE], tl.float32)
    sums = tl.zeros([GROUP_TILE, SIZE_TILE], tl.float32)
    for start in range(begin, end, SLOTS):
        positions = start + tl.arange(0, SLOTS)
        seen = positions < end
        if WINDOWED:
            seen &= positions >= context - window
        at = places(tables + row * table_row, positions, seen, block_stride, slot_stride, BLOCK)
        key = tl.load(
            keys + at[None, :] + sizes[:, None], mask=seen[None, :] & (sizes < SIZE)[:, None], other=0.0
        )
        value = tl.load(
            values + at[:, None] + sizes[None, :], mask=seen[:, None] & (sizes < SIZE)[None, :], other=0.0
        )
        most, total, sums = take_in(
            query, key, value, seen[None, :], most, total, sums, scale, cap, CAPPED, PRECISION
        )
    own = (row * PIECES + piece) * HEADS + heads
    tl.store(logs + own, most + tl.log2(total), mask=group < GROUP)
    tl.store(mixed + own[:, None] * SIZE + sizes[None, :], sums / total[:, None], mask=whole)


@triton.jit
def _merge(
    mixed: tl.tensor,
    logs: tl.tensor,
    contexts: tl.tensor,
    out: tl.tensor,
    out_row: tl.tensor,
    out_head: tl.tensor,
    window: tl.tensor,
    HEADS: tl.constexpr,
    SIZE: tl.constexpr,
    SIZE_TILE: tl.constexpr,
    SLOTS: tl.constexpr,
    PIECES: tl.constexpr,
    PIECES_TILE: tl.constexpr,
    LEAST: tl.constexpr,
    WINDOWED: tl.constexpr,
) -> None:
    """The pieces of one row and head, each by its share of the weights."""
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    context = tl.load(contexts + row)
    first, each = _cut(context, window, SLOTS, PIECES, LEAST, WINDOWED)
    pieces, sizes = tl.arange(0, PIECES_TILE), tl.arange(0, SIZE_TILE)
    made = first + pieces * each < context
    at = (row * PIECES + pieces) * HEADS + head
    log = tl.load(logs + at, mask=made, other=-float("inf"))
    most = tl.max(log, 0)
    shares = tl.exp2(log - tl.where(most == -float("inf"), 0.0, most))
    total = tl.sum(shares, 0)
    shares /= tl.where(total == 0, 1.0, total)
    parts = tl.load(
        mixed + at[:, None] * SIZE + sizes[None, :], mask=made[:, None] & (sizes < SIZE)[None, :], other=0.0
    )
    merged = tl.sum(parts * shares[:, None], 0)
    tl.store(
        out + row * out_row + head * out_head + sizes, merged.to(out.dtype.element_ty), mask=sizes < SIZE
    )
