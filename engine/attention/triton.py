"""Attention on CUDA devices, by Triton's kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch

from engine.attention.cpu import KVLayer
from engine.attention.paged_decode import decode, partial_results
from engine.attention.paged_prefill import prefill, row_tiles
from engine.attention.plan import AttentionSpec, slot_of
from engine.memory.sizes import round_up

_WIDTH = 16
"""Tables are multiples of it: Triton compiles once more for others."""


@dataclass(frozen=True, slots=True)
class TritonPlan:
    generated: bool
    """The rows are tokens of answers, each with a table of its own, else of prompts."""
    slots: torch.Tensor
    """Where each row's own key and value go, int64 [rows]; -1 for a row that is none."""
    tables: torch.Tensor
    """Block tables, int32 [rows or sequences, blocks]."""
    extents: torch.Tensor
    """Of generated rows how many positions there are up to each, itself included, int32 [rows]: 0 for a row
    that is none. Of prompts their tiles, int32 [tiles, 4]."""

    @classmethod
    def blank(cls, rows: int, blocks: int, device: torch.device) -> Self:
        """Of ``rows`` generated rows that are none, at addresses that a CUDA graph may hold."""
        tables = torch.zeros(rows, round_up(blocks, _WIDTH), dtype=torch.int32, device=device)
        slots = torch.full((rows,), -1, dtype=torch.int64, device=device)
        return cls(True, slots, tables, torch.zeros(rows, dtype=torch.int32, device=device))

    def take(self, other: TritonPlan) -> None:
        """Become ``other``, with rows that are none behind its own."""
        rows, width = other.tables.shape
        self.slots[:rows].copy_(other.slots)
        self.slots[rows:] = -1
        self.extents[:rows].copy_(other.extents)
        self.extents[rows:] = 0
        self.tables[:rows, :width].copy_(other.tables)


class TritonAttention:
    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._partial: dict[tuple[int, int, int], tuple[torch.Tensor, torch.Tensor]] = {}
        """For decoding, by heads, KV heads and head size; one layer after the other uses it."""

    def plan(self, spans: Sequence[tuple[int, int, Sequence[int]]], *, generated: bool) -> TritonPlan:
        slots = [
            slot_of(table, position)
            for first, count, table in spans
            for position in range(first, first + count)
        ]
        tables = [table for _, count, table in spans for _ in range(count if generated else 1)]
        width = round_up(max(map(len, tables)), _WIDTH)
        extents: list[int] | list[tuple[int, int, int, int]]
        if generated:
            extents = [at + 1 for first, count, _ in spans for at in range(first, first + count)]
        else:
            extents = row_tiles([(first, count) for first, count, _ in spans])
        return TritonPlan(
            generated,
            torch.tensor(slots, device=self._device),
            self._int32([[*table, *[0] * (width - len(table))] for table in tables]),
            self._int32(extents),
        )

    def attend(
        self, plan: TritonPlan, layer: KVLayer, queries: torch.Tensor, spec: AttentionSpec
    ) -> torch.Tensor:
        out = torch.empty(queries.shape, dtype=queries.dtype, device=queries.device)
        if plan.generated:
            partial = self.reserve(len(queries), queries.shape[1], layer[0].shape[2], queries.shape[2])
            decode(queries, layer, plan.tables, plan.extents, spec, partial, out)
        else:
            prefill(queries, layer, plan.tables, plan.extents, spec, out)
        return out

    def reserve(self, rows: int, heads: int, kv_heads: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Room for the partial results of so many rows, which stays where it is for fewer: a CUDA graph is
        captured after this was called for its largest batch."""
        shape = (heads, kv_heads, size)
        if shape not in self._partial or len(self._partial[shape][0]) < rows:
            self._partial[shape] = partial_results(rows, *shape, self._device)
        return self._partial[shape]

    def _int32(self, numbers: Sequence[object]) -> torch.Tensor:
        return torch.tensor(numbers, dtype=torch.int32, device=self._device)
