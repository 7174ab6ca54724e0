"""Paged attention in plain torch, the reference for every other implementation.

Keys and values are read where they lie: a sequence whose blocks are neighbours is one strided view, and one
with a shared beginning a few, whose results are merged by their log-sum-exps (Dao et al., 2022). Every
sequence is a call of its own, never padded to a common length, so no answer depends on its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.nn.functional import scaled_dot_product_attention

from engine.attention.plan import AttentionPlan, AttentionSpec, Run, Span, cut

KVLayer = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of one layer, each [blocks, block size, KV heads, head size], contiguous."""

_MOST_RUNS = 4
"""Above so many, copying is cheaper than merging."""

_flash: Callable[..., tuple[torch.Tensor, torch.Tensor]] = (
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
)
"""Values, and the log-sum-exps of the scores."""


def write_kv(plan: AttentionPlan, layer: KVLayer, keys: torch.Tensor, values: torch.Tensor) -> None:
    """Put the step's keys and values [rows, KV heads, head size] into their slots."""
    for cache, fresh in zip(layer, (keys, values), strict=True):
        cache.flatten(0, 1).index_copy_(0, plan.slots, fresh)


def attend(plan: AttentionPlan, layer: KVLayer, queries: torch.Tensor, spec: AttentionSpec) -> torch.Tensor:
    """queries [rows, heads, head size] → [rows, heads, head size]."""
    mixed = [_attend(span, layer, queries[span.start : span.stop], spec) for span in plan.spans]
    return mixed[0] if len(mixed) == 1 else torch.cat(mixed)


def _attend(span: Span, layer: KVLayer, queries: torch.Tensor, spec: AttentionSpec) -> torch.Tensor:
    runs = cut(span.runs, span.since(spec.window))
    if spec.softcap is None and len(queries) == 1:
        return _decode(runs, layer, queries, spec.scale)
    keys, values = _contiguous(runs, layer[0]), _contiguous(runs, layer[1])
    if spec.softcap is not None:
        return _capped(span, keys, values, queries, spec)
    causal = span.first == 0 and (spec.window is None or spec.window >= span.context)
    mixed = scaled_dot_product_attention(
        queries.transpose(0, 1).unsqueeze(0),
        keys,
        values,
        attn_mask=None if causal else span.mask(spec.window),
        is_causal=causal,
        scale=spec.scale,
        enable_gqa=True,
    )
    return mixed.squeeze(0).transpose(0, 1)


def _decode(runs: Sequence[Run], layer: KVLayer, queries: torch.Tensor, scale: float) -> torch.Tensor:
    """One row, which sees all of ``runs``. The heads that share a KV head are rows of one product with it."""
    grouped = queries.view(1, layer[0].shape[2], -1, queries.shape[2])
    if len(runs) > _MOST_RUNS:
        keys, values = _contiguous(runs, layer[0]), _contiguous(runs, layer[1])
        return _flash(grouped, keys, values, scale=scale)[0].view(queries.shape)
    parts = [_flash(grouped, _view(run, layer[0]), _view(run, layer[1]), scale=scale) for run in runs]
    if len(parts) == 1:
        return parts[0][0].view(queries.shape)
    shares = torch.stack([lse for _, lse in parts]).softmax(0).unsqueeze(-1)
    mixed = (torch.stack([part for part, _ in parts]).float() * shares).sum(0)
    return mixed.to(queries.dtype).view(queries.shape)


def _capped(
    span: Span, keys: torch.Tensor, values: torch.Tensor, queries: torch.Tensor, spec: AttentionSpec
) -> torch.Tensor:
    """With a cap on the scores, which torch's kernels do not know; in float32."""
    assert spec.softcap is not None
    rows, heads, size = queries.shape
    kv_heads, columns = keys.shape[1], keys.shape[2]
    grouped = queries.float().transpose(0, 1).reshape(kv_heads, -1, size)
    scores = (grouped @ keys.squeeze(0).float().mT).view(heads, rows, columns) * (spec.scale / spec.softcap)
    scores = (scores.tanh() * spec.softcap).masked_fill(~span.mask(spec.window), -torch.inf)
    weights = scores.softmax(-1).view(kv_heads, -1, columns)
    mixed = (weights @ values.squeeze(0).float()).view(heads, rows, size)
    return mixed.transpose(0, 1).to(queries.dtype)


def _view(run: Run, cache: torch.Tensor) -> torch.Tensor:
    """[1, KV heads, slots, head size], of the cache's own memory."""
    (start, length), (_, slot, head, _) = run, cache.stride()
    size = (1, cache.shape[2], length, cache.shape[3])
    return cache.as_strided(size, (0, head, slot, 1), cache.storage_offset() + start * slot)


def _contiguous(runs: Sequence[Run], cache: torch.Tensor) -> torch.Tensor:
    """[1, KV heads, slots, head size]; a copy if there are several runs."""
    views = [_view(run, cache) for run in runs]
    return views[0] if len(views) == 1 else torch.cat(views, dim=2)
