"""Paged attention in plain torch: gather the blocks, then scaled dot-product attention.

The reference for every other implementation. Grouped-query attention is left to torch's kernel.
"""

from __future__ import annotations

import torch
from torch.nn.functional import scaled_dot_product_attention

from engine.attention.plan import AttentionPlan, DecodeGroup, PrefillSpan

KVLayer = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of one layer, each [blocks, block size, KV heads, head size]."""


def write_kv(plan: AttentionPlan, layer: KVLayer, keys: torch.Tensor, values: torch.Tensor) -> None:
    """Put the step's keys and values [rows, KV heads, head size] into their slots."""
    layer[0][plan.slots] = keys
    layer[1][plan.slots] = values


def attend(plan: AttentionPlan, layer: KVLayer, queries: torch.Tensor, scale: float) -> torch.Tensor:
    """queries [rows, heads, head size] → [rows, heads, head size]."""
    out = torch.empty_like(queries)
    for span in plan.prefills:
        out[span.start : span.stop] = _prefill(span, layer, queries[span.start : span.stop], scale)
    for group in plan.decodes:
        out[group.rows] = _decode(group, layer, queries[group.rows], scale)
    return out


def _prefill(span: PrefillSpan, layer: KVLayer, queries: torch.Tensor, scale: float) -> torch.Tensor:
    keys, values = (cache[span.blocks].flatten(0, 1)[: span.context].transpose(0, 1) for cache in layer)
    mixed = scaled_dot_product_attention(
        queries.transpose(0, 1).unsqueeze(0),
        keys.unsqueeze(0),
        values.unsqueeze(0),
        attn_mask=span.mask,
        is_causal=span.mask is None,
        scale=scale,
        enable_gqa=True,
    )
    return mixed.squeeze(0).transpose(0, 1)


def _decode(group: DecodeGroup, layer: KVLayer, queries: torch.Tensor, scale: float) -> torch.Tensor:
    keys, values = (cache[group.blocks].flatten(1, 2)[:, : group.context].transpose(1, 2) for cache in layer)
    mixed = scaled_dot_product_attention(queries.unsqueeze(2), keys, values, scale=scale, enable_gqa=True)
    return mixed.squeeze(2)
