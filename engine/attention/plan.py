"""How the rows of a pass attend: made once, the same for all layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch

from engine.blocks import BLOCK_SIZE, blocks_for
from engine.memory.sizes import round_up


@dataclass(frozen=True, slots=True)
class AttentionSpec:
    """What a layer does with its scores: scale, cap, look back."""

    scale: float
    window: int | None = None
    """A row sees itself and the ``window - 1`` positions before it; None: all before it."""
    softcap: float | None = None
    """Scores go through ``softcap * tanh(score / softcap)`` before the mask; None: as they are."""


Run = tuple[int, int]
"""(first slot, slots) of consecutive slots of the cache."""

TILE = BLOCK_SIZE
"""Rows of a prompt that attend together, at fixed positions; no kernel sees other lengths than multiples
of it, since each new shape costs time and memory to prepare."""
SEGMENT = 512
"""Slots that a decoded row looks at in one go, at fixed positions."""


@dataclass(frozen=True, slots=True)
class Span:
    """Rows ``start:stop`` of a pass are one sequence's tokens at positions ``first:context``."""

    start: int
    stop: int
    first: int
    runs: tuple[Run, ...]
    """Where the positions from 0 lie, to the end of the last block."""

    @property
    def context(self) -> int:
        return self.first + self.stop - self.start

    def segments(self, window: int | None) -> list[tuple[int, int]]:
        """Of a generated row: the positions that it looks at, to the end of its block."""
        end = round_up(self.context, TILE)
        if window is not None:
            return [(max(0, self.context - window) // TILE * TILE, end)]
        starts = range(0, self.context, SEGMENT)
        return [(start, min(start + SEGMENT, end)) for start in starts]


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    generated: bool
    """The rows are tokens of answers, each a span of its own, else of prompts."""
    slots: torch.Tensor
    """Where each row's own key and value go, int64 [rows]."""
    blank: torch.Tensor | None
    """Slots to the end of a block that is begun, which are read (and masked) before they are written."""
    spans: tuple[Span, ...]
    """In the order of their rows."""
    reads: dict[Any, Any] = field(default_factory=dict)
    """What has been worked out of the plan for one layer, for others like it."""


def make_plan(
    spans: Sequence[tuple[int, int, Sequence[int]]], device: torch.device, *, generated: bool = False
) -> AttentionPlan:
    """``spans``: per sequence its first position in this pass, its number of rows, and its block table."""
    slots: list[int] = []
    blank: list[int] = []
    made: list[Span] = []
    for first, count, table in spans:
        context, row = first + count, len(slots)
        slots += [slot_of(table, position) for position in range(first, context)]
        runs = _runs(table, context)
        if not generated:
            made.append(Span(row, row + count, first, runs))
            blank += [slot_of(table, position) for position in range(context, round_up(context, TILE))]
            continue
        for at, position in enumerate(range(first, context), row):
            made.append(Span(at, at + 1, position, runs))
            if position % BLOCK_SIZE == 0:
                blank += [slot_of(table, behind) for behind in range(position + 1, position + BLOCK_SIZE)]
    missing = torch.tensor(blank, device=device) if blank else None
    return AttentionPlan(generated, torch.tensor(slots, device=device), missing, tuple(made))


def slot_of(table: Sequence[int], position: int) -> int:
    return table[position // BLOCK_SIZE] * BLOCK_SIZE + position % BLOCK_SIZE


def _runs(table: Sequence[int], context: int) -> tuple[Run, ...]:
    """The slots of the blocks of ``context`` tokens, neighbouring blocks taken together."""
    used = list(table[: blocks_for(context)])
    if used == list(range(used[0], used[0] + len(used))):
        return ((used[0] * BLOCK_SIZE, len(used) * BLOCK_SIZE),)
    starts = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(used)) if b != a + 1), len(used)]
    return tuple((used[a] * BLOCK_SIZE, (b - a) * BLOCK_SIZE) for a, b in pairwise(starts))


def cut(runs: Sequence[Run], first: int, stop: int) -> list[Run]:
    """The part of ``runs`` that holds the positions ``first:stop``."""
    found: list[Run] = []
    at = 0
    for slot, length in runs:
        a, b = max(first, at), min(stop, at + length)
        if a < b:
            found.append((slot + a - at, b - a))
        at += length
    return found
