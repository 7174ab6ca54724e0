"""What steps of answers read and write, at addresses on the device that never change.

Twins in the host's memory are filled and copied over, in turn: one while the device may still be at the step
that the other was filled for. Of block tables only what has grown is written anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from engine.attention.plan import slot_of
from engine.attention.table_plan import TABLE_WIDTH, TablePlan
from engine.batch import Batch
from engine.memory.sizes import round_up

_NO_SLOT = -1
_SETTINGS = 5

Settings = Sequence[Sequence[float]]
"""Of each row, as ``engine.kernels.choose`` takes them."""


class DecodeInputs:
    """For up to ``rows`` sequences of up to ``blocks`` blocks, a token each. Rows that are none write nothing
    and look at nothing."""

    def __init__(self, rows: int, blocks: int, device: torch.device) -> None:
        width, locked = round_up(blocks, TABLE_WIDTH), device.type == "cuda"
        self._twins = [_Twin(rows, width, locked=locked) for _ in range(2)]
        """The one that was filled last is the last."""
        self._rows = rows
        self._numbers = torch.zeros(7, rows, dtype=torch.int64, device=device)
        """The tokens chosen by the last step, and the numbers of a twin."""
        self._settings = torch.zeros(rows, _SETTINGS, device=device)
        self._tables = torch.zeros(rows, width, dtype=torch.int32, device=device)
        self.clear()

    @property
    def nbytes(self) -> int:
        """Of the device."""
        return self._numbers.nbytes + self._settings.nbytes + self._tables.nbytes

    def token_ids(self, rows: int) -> torch.Tensor:
        """int64 [rows]: those given, or chosen by the step before. To be asked for in each step."""
        return self._numbers[:2].flatten().index_select(0, self._numbers[6, :rows])

    def places(self, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Positions, prompt lengths, int64 [rows]."""
        return self._numbers[2, :rows], self._numbers[3, :rows]

    def plan(self, rows: int) -> TablePlan:
        """For the attention of these rows in whatever steps come."""
        return TablePlan(True, self._numbers[4, :rows], self._tables[:rows], self._numbers[5, :rows])

    def choice(self, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Settings, float32 [rows, 5], and where the tokens chosen by them go, int64 [rows]."""
        return self._settings[:rows], self._numbers[0, :rows]

    def clear(self) -> None:
        """No row is one."""
        self._numbers.zero_()
        self._numbers[4].fill_(_NO_SLOT)

    def fill(self, batch: Batch, rows: int, settings: Settings, after: Sequence[int] | None = None) -> None:
        """The first of ``rows`` rows, the others are none. ``after``: of which row of the step before each
        one's token is what that chooses, whatever the batch says."""
        twin = self._twins.pop(0)
        self._twins.append(twin)
        twin.wait()
        given = range(self._rows, self._rows + len(batch.spans))
        twin.fill(batch, given if after is None else after, settings)
        self._numbers[1:].copy_(twin.numbers, non_blocking=True)
        self._settings[:rows].copy_(twin.settings[:rows], non_blocking=True)
        self._tables[:rows].copy_(twin.tables[:rows], non_blocking=True)

    def chosen(self, rows: int, mark: Callable[[], Callable[[], None]]) -> Callable[[], list[int]]:
        """Queue the way back of what this step chooses; a function that waits for it, good until the step
        after the next is filled. ``mark`` gives one that waits for all that is queued."""
        twin = self._twins[-1]
        twin.chosen[:rows].copy_(self._numbers[0, :rows], non_blocking=True)
        twin.wait = done = mark()

        def wait() -> list[int]:
            done()
            return twin.chosen[:rows].tolist()

        return wait


class _Twin:
    """In the host's memory, locked where a device copies by itself."""

    def __init__(self, rows: int, blocks: int, *, locked: bool) -> None:
        self.numbers = torch.zeros(6, rows, dtype=torch.int64, pin_memory=locked)
        """Token ids, positions, prompt lengths, slots, contexts, and which of the tokens chosen before, or
        else of these, is each row's."""
        self.settings = torch.zeros(rows, _SETTINGS, pin_memory=locked)
        self.tables = torch.zeros(rows, blocks, dtype=torch.int32, pin_memory=locked)
        self.chosen = torch.zeros(rows, dtype=torch.int64, pin_memory=locked)
        self.wait: Callable[[], None] = lambda: None
        """Until nothing is copied from it or to it any more."""
        self._written: list[tuple[Sequence[int], int]] = [((), 0)] * rows
        """Which table each row has, and how many of its blocks. A table only grows; one that is begun anew
        is another."""

    def fill(self, batch: Batch, sources: Sequence[int], settings: Settings) -> None:
        count, numbers = len(batch.spans), self.numbers.numpy()
        slots = [slot_of(table, first) for first, _, table in batch.spans]
        contexts = [first + 1 for first, _, _ in batch.spans]
        own = batch.token_ids, batch.positions, batch.prompt_lengths, slots, contexts, sources
        numbers[:, :count] = own
        numbers[:, count:] = 0
        numbers[3, count:] = _NO_SLOT
        self.settings.numpy()[:count] = settings
        self.settings.numpy()[count:] = 0
        for row, (_, _, table) in enumerate(batch.spans):
            self._fill_table(row, table)

    def _fill_table(self, row: int, table: Sequence[int]) -> None:
        before, count = self._written[row]
        start = count if before is table else 0
        if start < len(table):
            self.tables.numpy()[row, start : len(table)] = table[start:]
        self._written[row] = (table, len(table))
