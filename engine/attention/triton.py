"""Attention on CUDA devices, by Triton's kernels."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from engine.attention.cpu import KVLayer
from engine.attention.paged_decode import decode, partial_results
from engine.attention.paged_prefill import prefill, row_tiles
from engine.attention.plan import AttentionSpec, slot_of
from engine.attention.table_plan import TABLE_WIDTH, TablePlan
from engine.memory.sizes import round_up


class TritonAttention:
    """See ``engine.attention.interface.Attention``."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def plan(self, spans: Sequence[tuple[int, int, Sequence[int]]], *, generated: bool) -> TablePlan:
        slots = [
            slot_of(table, position)
            for first, count, table in spans
            for position in range(first, first + count)
        ]
        tables = [table for _, count, table in spans for _ in range(count if generated else 1)]
        width = round_up(max(map(len, tables)), TABLE_WIDTH)
        padded = [[*table, *[0] * (width - len(table))] for table in tables]
        if generated:
            extents = self._tensor(
                [at + 1 for first, count, _ in spans for at in range(first, first + count)]
            )
        else:
            extents = self._tensor(row_tiles([(first, count) for first, count, _ in spans]), torch.int32)
        return TablePlan(generated, self._tensor(slots), self._tensor(padded, torch.int32), extents)

    def attend(
        self, plan: TablePlan, layer: KVLayer, queries: torch.Tensor, spec: AttentionSpec
    ) -> torch.Tensor:
        out = torch.empty(queries.shape, dtype=queries.dtype, device=queries.device)
        if plan.generated:
            rows, heads, size = queries.shape
            partial = partial_results(rows, heads, layer[0].shape[2], size, queries.device)
            decode(queries, layer, plan.tables, plan.extents, spec, partial, out)
        else:
            prefill(queries, layer, plan.tables, plan.extents, spec, out)
        return out

    def _tensor(self, numbers: Sequence[object], dtype: torch.dtype = torch.int64) -> torch.Tensor:
        return torch.tensor(numbers, dtype=dtype, device=self._device)
