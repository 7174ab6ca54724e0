"""How the rows of a step attend: made once a step, the same for all layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch

from engine.blocks import BLOCK_SIZE, blocks_for


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


@dataclass(frozen=True, slots=True)
class Span:
    """Rows ``start:stop`` of the step are one sequence's tokens at positions ``first:context``."""

    start: int
    stop: int
    context: int
    runs: tuple[Run, ...]
    """Where the positions from 0 to ``context`` lie."""
    device: torch.device
    _masks: dict[int | None, torch.Tensor] = field(default_factory=dict)

    @property
    def first(self) -> int:
        return self.context - (self.stop - self.start)

    def since(self, window: int | None) -> int:
        """The first position that any of the rows sees."""
        return 0 if window is None else max(0, self.first + 1 - window)

    def mask(self, window: int | None) -> torch.Tensor:
        """bool [rows, context - since]: True where a row may look."""
        if window not in self._masks:
            columns = torch.arange(self.since(window), self.context, device=self.device)
            rows = torch.arange(self.first, self.context, device=self.device).unsqueeze(1)
            seen = columns <= rows
            self._masks[window] = seen if window is None else seen & (columns > rows - window)
        return self._masks[window]


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    slots: torch.Tensor
    """Where each row's own key and value go, int64 [rows]."""
    spans: tuple[Span, ...]
    """In the order of their rows."""


def make_plan(spans: Sequence[tuple[int, int, Sequence[int]]], device: torch.device) -> AttentionPlan:
    """``spans``: per sequence its first position in this step, its number of rows, and its block table."""
    slots: list[int] = []
    made: list[Span] = []
    for first, count, table in spans:
        context, row = first + count, len(slots)
        slots += [table[p // BLOCK_SIZE] * BLOCK_SIZE + p % BLOCK_SIZE for p in range(first, context)]
        made.append(Span(row, row + count, context, _runs(table, context), device))
    return AttentionPlan(torch.tensor(slots, device=device), tuple(made))


def _runs(table: Sequence[int], context: int) -> tuple[Run, ...]:
    """The slots of ``context`` tokens, neighbouring blocks taken together."""
    used = list(table[: blocks_for(context)])
    if used == list(range(used[0], used[0] + len(used))):
        return ((used[0] * BLOCK_SIZE, context),)
    starts = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(used)) if b != a + 1), len(used)]
    return tuple(
        (used[a] * BLOCK_SIZE, min(b * BLOCK_SIZE, context) - a * BLOCK_SIZE) for a, b in pairwise(starts)
    )


def cut(runs: Sequence[Run], since: int) -> list[Run]:
    """Without the first ``since`` slots."""
    left: list[Run] = []
    for start, length in runs:
        skip = min(since, length)
        since -= skip
        if length > skip:
            left.append((start + skip, length - skip))
    return left
