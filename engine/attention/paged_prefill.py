"""Attention of prompts' rows over paged keys and values, those of several sequences in one launch.

Tiles of rows are worked on apart, each over the slots that its rows see, from the first on (Dao et al.,
2022). A tile's rows belong to one sequence. Which slots come together is told by their positions alone, so a
row is told the same to the bit wherever its prompt is cut.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from engine.attention.plan import AttentionSpec
from engine.attention.tiles import LOG2_E, places, precision, take_in, tiles_for
from engine.blocks import BLOCK_SIZE

TILE_ROWS = 128
"""Of the entries of ``tiles``; kernels with smaller tiles take several to an entry."""


def row_tiles(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int, int, int]]:
    """``spans``: per sequence its first position in this pass, and its number of rows → per tile its
    sequence, its first row, its number of rows, and that row's position."""
    tiles: list[tuple[int, int, int, int]] = []
    row = 0
    for index, (first, count) in enumerate(spans):
        starts = range(0, count, TILE_ROWS)
        tiles += [(index, row + at, min(TILE_ROWS, count - at), first + at) for at in starts]
        row += count
    # The longest ones first, so that none is left to run alone at the end.
    return sorted(tiles, key=lambda tile: -tile[3])


def prefill(
    queries: torch.Tensor,
    layer: tuple[torch.Tensor, torch.Tensor],
    tables: torch.Tensor,
    tiles: torch.Tensor,
    spec: AttentionSpec,
    out: torch.Tensor,
) -> None:
    """queries [rows, heads, size] → out, alike. ``tables`` int32 [sequences, blocks], ``tiles`` int32
    [tiles, 4] of ``row_tiles``."""
    heads, size = queries.shape[1:]
    keys, values = layer
    assert keys.stride() == values.stride()
    sizes = tiles_for(size, queries.dtype)
    scale = spec.scale * LOG2_E if spec.softcap is None else spec.scale / spec.softcap
    _tile[(len(tiles), TILE_ROWS // sizes.rows, heads)](
        queries, keys, values, tables, tiles, out,
        queries.stride(0), queries.stride(1), *keys.stride()[:3], out.stride(0), out.stride(1),
        tables.stride(0), scale, (spec.softcap or 0.0) * LOG2_E, spec.window or 0,
        GROUP=heads // keys.shape[2], SIZE=size, SIZE_TILE=sizes.padded, ROWS=sizes.rows, SLOTS=sizes.slots,
        BLOCK=BLOCK_SIZE, WINDOWED=spec.window is not None, CAPPED=spec.softcap is not None,
        PRECISION=precision(queries.dtype), num_warps=8 if sizes.rows == 128 else 4, num_stages=2,
        enable_fp_fusion=False,
    )  # fmt: skip


@triton.jit
def _tile(
    queries: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    tables: tl.tensor,
    tiles: tl.tensor,
    out: tl.tensor,
    query_row: tl.tensor,
    query_head: tl.tensor,
    block_stride: tl.tensor,
    slot_stride: tl.tensor,
    head_stride: tl.tensor,
    out_row: tl.tensor,
    out_head: tl.tensor,
    table_row: tl.tensor,
    scale: tl.float32,
    cap: tl.float32,
    window: tl.tensor,
    GROUP: tl.constexpr,
    SIZE: tl.constexpr,
    SIZE_TILE: tl.constexpr,
    ROWS: tl.constexpr,
    SLOTS: tl.constexpr,
    BLOCK: tl.constexpr,
    WINDOWED: tl.constexpr,
    CAPPED: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Rows of one sequence, for one head."""
    tile, part, head = tiles + tl.program_id(0) * 4, tl.program_id(1) * ROWS, tl.program_id(2)
    sequence, start, count = tl.load(tile).to(tl.int64), tl.load(tile + 1), tl.load(tile + 2) - part
    if count <= 0:
        return
    first = tl.load(tile + 3) + part
    own, sizes = tl.arange(0, ROWS), tl.arange(0, SIZE_TILE)
    rows = (start + part + own).to(tl.int64)
    whole = (own < count)[:, None] & (sizes < SIZE)[None, :]
    query = tl.load(
        queries + rows[:, None] * query_row + head * query_head + sizes[None, :], mask=whole, other=0.0
    )
    keys += head // GROUP * head_stride
    values += head // GROUP * head_stride
    table = tables + sequence * table_row
    positions = first + own
    end = first + tl.minimum(count, ROWS)
    begin = first * 0
    if WINDOWED:
        begin = tl.maximum(first + 1 - window, 0)
    most = tl.full([ROWS], -float("inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    sums = tl.zeros([ROWS, SIZE_TILE], tl.float32)
    for at in range(begin // SLOTS * SLOTS, end, SLOTS):
        slots = at + tl.arange(0, SLOTS)
        needed = (slots >= begin) & (slots < end)
        place = places(table, slots, needed, block_stride, slot_stride, BLOCK)
        key = tl.load(
            keys + place[None, :] + sizes[:, None], mask=needed[None, :] & (sizes < SIZE)[:, None], other=0.0
        )
        value = tl.load(
            values + place[:, None] + sizes[None, :],
            mask=needed[:, None] & (sizes < SIZE)[None, :],
            other=0.0,
        )
        seen = needed[None, :] & (slots[None, :] <= positions[:, None])
        if WINDOWED:
            seen &= slots[None, :] > positions[:, None] - window
        most, total, sums = take_in(query, key, value, seen, most, total, sums, scale, cap, CAPPED, PRECISION)
    mixed = sums / tl.where(total == 0, 1.0, total)[:, None]
    tl.store(
        out + rows[:, None] * out_row + head * out_head + sizes[None, :],
        mixed.to(out.dtype.element_ty),
        mask=whole,
    )
