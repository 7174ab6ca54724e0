"""Sequences scattered over a poisoned cache: a read of what a row may not see shows as NaN."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from engine.attention import AttentionSpec
from engine.attention.cpu import attend, write_kv
from engine.attention.plan import make_plan
from engine.blocks import BLOCK_SIZE, blocks_for

CPU = torch.device("cpu")
Shape = tuple[int, int, int]
"""Heads, KV heads, head size."""
TOLERANCE = {torch.float32: 2e-5, torch.float16: 2e-3}


@dataclass(frozen=True)
class Scene:
    """Sequences, each of ``contexts`` positions with queries of its last ``counts``."""

    shape: Shape
    dtype: torch.dtype
    contexts: list[int]
    counts: list[int]
    tables: list[list[int]]
    layer: tuple[torch.Tensor, torch.Tensor]
    """Where nothing was written there is NaN."""
    queries: torch.Tensor

    @property
    def spans(self) -> list[tuple[int, int, Sequence[int]]]:
        return [
            (context - count, count, table)
            for context, count, table in zip(self.contexts, self.counts, self.tables, strict=True)
        ]

    def reference(self, spec: AttentionSpec, *, generated: bool) -> torch.Tensor:
        """As the CPU tells it, from a cache of its own that it may read anywhere."""
        layer = (self.layer[0].nan_to_num().float(), self.layer[1].nan_to_num().float())
        plan = make_plan(self.spans, CPU, generated=generated)
        return attend(plan, layer, self.queries.float(), spec)

    def hide(self, window: int) -> None:
        """Poison what no query sees."""
        for context, count, table in zip(self.contexts, self.counts, self.tables, strict=True):
            for position in range(max(0, context - count + 1 - window)):
                for cache in self.layer:
                    cache[table[position // BLOCK_SIZE], position % BLOCK_SIZE] = torch.nan


def make_scene(
    shape: Shape, dtype: torch.dtype, contexts: list[int], counts: list[int] | None = None, seed: int = 0
) -> Scene:
    heads, kv_heads, size = shape
    counts = counts or [1] * len(contexts)
    generator = torch.Generator().manual_seed(seed)
    needed = [blocks_for(context) for context in contexts]
    blocks = list(range(1, sum(needed) + 4))
    random.Random(seed).shuffle(blocks)
    tables = [[blocks.pop() for _ in range(count)] for count in needed]
    layer = tuple(
        torch.full((sum(needed) + 4, BLOCK_SIZE, kv_heads, size), torch.nan, dtype=dtype) for _ in range(2)
    )
    for context, table in zip(contexts, tables, strict=True):
        keys, values = torch.randn(2, context, kv_heads, size, generator=generator).to(dtype)
        write_kv(make_plan([(0, context, table)], CPU, generated=True), layer, keys, values)
        for cache in layer:
            cache[table[-1], (context - 1) % BLOCK_SIZE + 1 :] = torch.nan
    queries = torch.randn(sum(counts), heads, size, generator=generator).to(dtype)
    return Scene(shape, dtype, contexts, counts, tables, (layer[0], layer[1]), queries)


def padded(tables: list[list[int]], width: int, device: torch.device) -> torch.Tensor:
    """Block tables as kernels read them; what is behind their end is no block at all."""
    rows = [table + [2**31 - 1] * (width - len(table)) for table in tables]
    return torch.tensor(rows, dtype=torch.int32, device=device)
