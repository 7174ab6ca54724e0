"""Paged attention in plain torch, the reference for every other implementation.

What a row is told depends on its position and on what it sees, to the bit, and on nothing else: not on its
neighbours in the step, nor on where its prompt was cut into chunks or found in the prefix cache. The kernels
round by the shape of a call, so the shapes are those of positions: a prompt's rows attend in tiles of a
block, padded to the whole, a generated row alone, in segments whose results are merged by their log-sum-exps
(Dao et al., 2022). Keys and values are read where they lie; only what is no neighbour is copied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch.nn.functional import pad

from engine.attention.plan import TILE, AttentionPlan, AttentionSpec, Run, Span, cut
from engine.blocks import BLOCK_SIZE, blocks_for

KVLayer = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of one layer, each [blocks, block size, KV heads, head size]; a block is contiguous."""

Part = tuple[list[Run], torch.Tensor | None]
"""Of what a generated row looks at: where it lies, and what of it is hidden."""

_flash: Callable[..., tuple[torch.Tensor, torch.Tensor]] = (
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
)
"""Values, and the log-sum-exps of the scores."""


def write_kv(plan: AttentionPlan, layer: KVLayer, keys: torch.Tensor, values: torch.Tensor) -> None:
    """Put the step's keys and values [rows, KV heads, head size] into their slots."""
    for cache, fresh in zip(layer, (keys, values), strict=True):
        if not cache.is_contiguous():
            if plan.blank is not None:
                cache[_places(plan.blank)] = 0
            cache[_places(plan.slots)] = fresh
            continue
        slots = cache.flatten(0, 1)
        if plan.blank is not None:
            slots.index_fill_(0, plan.blank, 0)
        slots.index_copy_(0, plan.slots, fresh)


def _places(slots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Blocks, and slots within them."""
    return slots // BLOCK_SIZE, slots % BLOCK_SIZE


def attend(plan: AttentionPlan, layer: KVLayer, queries: torch.Tensor, spec: AttentionSpec) -> torch.Tensor:
    """queries [rows, heads, head size] → [rows, heads, head size]."""
    if plan.generated:
        rows = zip(_generated_reads(plan, spec, queries.dtype), queries.unbind(), strict=True)
        return torch.stack([_generated_row(parts, layer, query, spec) for parts, query in rows])
    mixed = [_prompt(span, layer, queries[span.start : span.stop], spec) for span in plan.spans]
    return mixed[0] if len(mixed) == 1 else torch.cat(mixed)


def _prompt(span: Span, layer: KVLayer, queries: torch.Tensor, spec: AttentionSpec) -> torch.Tensor:
    heads, size, kv_heads = queries.shape[1], queries.shape[2], layer[0].shape[2]
    before, behind = span.first % TILE, -span.context % TILE
    begin, end = span.first - before, span.context + behind
    # [tiles, 1, KV heads, heads of each x rows, head size]: heads that share a KV head are rows of a product.
    tiles = pad(queries, (0, 0, 0, 0, before, behind)).view(-1, TILE, kv_heads, heads // kv_heads, size)
    tiles = tiles.permute(0, 2, 3, 1, 4).reshape(len(tiles), 1, kv_heads, -1, size)
    since = _since(begin, spec.window)
    runs = cut(span.runs, since, end)
    keys, values = _contiguous(runs, layer[0]), _contiguous(runs, layer[1])
    mask = _mask(spec.window, heads // kv_heads, _at_least(end - since), queries.dtype, queries.device)
    mixed = []
    for stop, tile in zip(range(begin + TILE, end + TILE, TILE), tiles.unbind(), strict=True):
        seen = slice(_since(stop - TILE, spec.window) - since, stop - since)
        visible = mask[..., mask.shape[-1] - (seen.stop - seen.start) :]
        mixed.append(_mix(tile, keys[:, :, seen], values[:, :, seen], visible, spec)[0])
    out = torch.stack(mixed).view(len(mixed), kv_heads, -1, TILE, size).permute(0, 3, 1, 2, 4)
    return out.reshape(-1, heads, size)[before : before + len(queries)]


def _generated_reads(plan: AttentionPlan, spec: AttentionSpec, dtype: torch.dtype) -> list[list[Part]]:
    """Per row of the plan, the same for all layers of one kind."""
    kind = (spec.window, spec.softcap is None)
    if kind not in plan.reads:
        plan.reads[kind] = [_parts(span, spec, dtype, plan.slots.device) for span in plan.spans]
    reads: list[list[Part]] = plan.reads[kind]
    return reads


def _parts(span: Span, spec: AttentionSpec, dtype: torch.dtype, device: torch.device) -> list[Part]:
    segments = span.segments(spec.window)
    if spec.softcap is not None:
        segments = [(segments[0][0], segments[-1][1])]
    parts: list[Part] = []
    for start, stop in segments:
        mask = None
        if stop > span.first:  # the row's own block, which goes on behind it
            whole = _mask(spec.window, 1, _at_least(stop - start), dtype, device)
            mask = whole[:, :, span.first % TILE, None, whole.shape[-1] - (stop - start) :]
        parts.append((cut(span.runs, start, stop), mask))
    return parts


def _generated_row(
    parts: list[Part], layer: KVLayer, query: torch.Tensor, spec: AttentionSpec
) -> torch.Tensor:
    """query [heads, head size] → [heads, head size]."""
    keys, values = layer
    grouped = query.view(1, keys.shape[2], -1, keys.shape[3])
    mixed = [
        _mix(grouped, _contiguous(runs, keys), _contiguous(runs, values), mask, spec) for runs, mask in parts
    ]
    if len(mixed) == 1:
        return mixed[0][0].view(query.shape)
    shares = torch.stack([lse for _, lse in mixed]).softmax(0).unsqueeze(-1)
    merged = (torch.stack([values for values, _ in mixed]).float() * shares).sum(0)
    return merged.to(query.dtype).view(query.shape)


def _mix(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
    spec: AttentionSpec,
) -> tuple[torch.Tensor, torch.Tensor]:
    """All [1, KV heads, rows or slots, head size] → values, and the log-sum-exps of their scores. Torch's
    kernels know no cap on the scores; that is done in float32."""
    if spec.softcap is None:
        return _flash(queries, keys, values, attn_mask=mask, scale=spec.scale)
    scores = (queries.float() @ keys.float().mT) * (spec.scale / spec.softcap)
    scores = scores.tanh() * spec.softcap
    if mask is not None:
        scores = scores + mask
    mixed = (scores.softmax(-1) @ values.float()).to(queries.dtype)
    return mixed, scores.logsumexp(-1)


def _since(first: int, window: int | None) -> int:
    """The first position that the row at ``first`` sees."""
    return 0 if window is None else max(0, first + 1 - window)


def _at_least(width: int) -> int:
    """A power of two, so that few masks are made."""
    return 1 << max(8, (width - 1).bit_length())


@lru_cache(maxsize=64)
def _mask(
    window: int | None, group: int, width: int, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """What a tile may see of the ``width`` slots up to its end: 0 or -inf, [1, 1, group x rows, width]."""
    rows = torch.arange(TILE, device=device).unsqueeze(1)
    columns = torch.arange(TILE - width, TILE, device=device)
    seen = columns <= rows
    if window is not None:
        seen &= columns > rows - window
    mask = torch.zeros(TILE, width, dtype=dtype, device=device).masked_fill(~seen, -torch.inf)
    return mask.repeat(group, 1)[None, None]


def _contiguous(runs: Sequence[Run], cache: torch.Tensor) -> torch.Tensor:
    """[1, KV heads, slots, head size]; a copy if there are several runs."""
    views = [_view(run, cache) for run in runs]
    return views[0] if len(views) == 1 else torch.cat(views, dim=2)


def _view(run: Run, cache: torch.Tensor) -> torch.Tensor:
    """Of the cache's own memory, if blocks lie one behind the other."""
    (start, length), (block, slot, head, _) = run, cache.stride()
    size = (1, cache.shape[2], length, cache.shape[3])
    if block != BLOCK_SIZE * slot:
        first, last = start // BLOCK_SIZE, blocks_for(start + length)
        copied = cache[first:last].permute(2, 0, 1, 3).flatten(1, 2)
        return copied[None, :, start - first * BLOCK_SIZE :][:, :, :length]
    return cache.as_strided(size, (0, head, slot, 1), cache.storage_offset() + start * slot)
