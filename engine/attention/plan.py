"""How the rows of a step attend: made once a step, the same for all layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from engine.kv_cache import BLOCK_SIZE, blocks_for


@dataclass(frozen=True, slots=True)
class PrefillSpan:
    """Rows ``start:stop`` of the step are one sequence's tokens at positions ``context - rows:context``."""

    start: int
    stop: int
    blocks: torch.Tensor
    """int64 [blocks]: those of the whole context."""
    context: int
    mask: torch.Tensor | None
    """bool [rows, context], True where a row may look; None when the rows are the whole context."""


@dataclass(frozen=True, slots=True)
class DecodeGroup:
    """Sequences of the same length with one row each. Never padded to a common length: a mask changes the
    kernel's sums, and an answer should not depend on its neighbours."""

    rows: torch.Tensor
    """int64 [n]."""
    blocks: torch.Tensor
    """int64 [n, blocks]."""
    context: int


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    slots: tuple[torch.Tensor, torch.Tensor]
    """Block and offset in it of each row's own key and value, int64 [rows] each."""
    prefills: tuple[PrefillSpan, ...]
    decodes: tuple[DecodeGroup, ...]


def make_plan(spans: Sequence[tuple[int, int, Sequence[int]]], device: torch.device) -> AttentionPlan:
    """``spans``: per sequence its first position in this step, its number of rows, and its block table."""
    blocks: list[int] = []
    offsets: list[int] = []
    prefills: list[PrefillSpan] = []
    decodes: dict[int, list[tuple[int, Sequence[int]]]] = {}
    row = 0
    for first, count, table in spans:
        positions = range(first, first + count)
        blocks += [table[position // BLOCK_SIZE] for position in positions]
        offsets += [position % BLOCK_SIZE for position in positions]
        context = first + count
        if count == 1:
            decodes.setdefault(context, []).append((row, table))
        else:
            prefills.append(_prefill(row, first, context, table, device))
        row += count
    slots = (torch.tensor(blocks, device=device), torch.tensor(offsets, device=device))
    return AttentionPlan(slots, tuple(prefills), tuple(_group(n, g, device) for n, g in decodes.items()))


def _prefill(row: int, first: int, context: int, table: Sequence[int], device: torch.device) -> PrefillSpan:
    mask = None
    if first:
        columns = torch.arange(context, device=device)
        mask = columns <= torch.arange(first, context, device=device).unsqueeze(1)
    used = torch.tensor(table[: blocks_for(context)], device=device)
    return PrefillSpan(row, row + context - first, used, context, mask)


def _group(context: int, members: Sequence[tuple[int, Sequence[int]]], device: torch.device) -> DecodeGroup:
    rows = torch.tensor([row for row, _ in members], device=device)
    blocks = torch.tensor([table[: blocks_for(context)] for _, table in members], device=device)
    return DecodeGroup(rows, blocks, context)
