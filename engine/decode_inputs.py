"""What a step of answers reads, at addresses on the device that never change.

A twin in the host's memory is filled and copied over; of block tables only what has grown is written anew.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from engine.attention.plan import slot_of
from engine.attention.table_plan import TABLE_WIDTH, TablePlan
from engine.batch import Batch
from engine.memory.sizes import round_up

_NO_SLOT = -1


class DecodeInputs:
    """For up to ``rows`` sequences of up to ``blocks`` blocks, a token each. Rows that are none write nothing
    and look at nothing."""

    def __init__(self, rows: int, blocks: int, device: torch.device) -> None:
        shape, locked = (rows, round_up(blocks, TABLE_WIDTH)), device.type == "cuda"
        self._host_numbers = torch.zeros(5, rows, dtype=torch.int64, pin_memory=locked)
        self._host_tables = torch.zeros(shape, dtype=torch.int32, pin_memory=locked)
        self._numbers = torch.zeros(5, rows, dtype=torch.int64, device=device)
        self._tables = torch.zeros(shape, dtype=torch.int32, device=device)
        self._written: list[tuple[Sequence[int], int]] = [((), 0)] * rows
        """Which table each row of the twin has, and how many of its blocks. A table only grows; one that is
        begun anew is another."""
        self.clear()

    @property
    def nbytes(self) -> int:
        """Of the device."""
        return self._numbers.nbytes + self._tables.nbytes

    def tokens(self, rows: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Token ids, positions, prompt lengths, int64 [rows]."""
        token_ids, positions, lengths = self._numbers[:3, :rows]
        return token_ids, positions, lengths

    def plan(self, rows: int) -> TablePlan:
        """For the attention of these rows in whatever steps come."""
        slots, contexts = self._numbers[3:, :rows]
        return TablePlan(True, slots, self._tables[:rows], contexts)

    def clear(self) -> None:
        """No row is one."""
        self._fill_numbers(Batch())
        self._numbers.copy_(self._host_numbers)

    def fill(self, batch: Batch, rows: int) -> None:
        """The first of ``rows`` rows, the others are none. Nothing of the step before may be under way."""
        self._fill_numbers(batch)
        for row, (_, _, table) in enumerate(batch.spans):
            self._fill_table(row, table)
        self._numbers.copy_(self._host_numbers, non_blocking=True)
        self._tables[:rows].copy_(self._host_tables[:rows], non_blocking=True)

    def _fill_numbers(self, batch: Batch) -> None:
        count, numbers = len(batch.spans), self._host_numbers.numpy()
        slots = [slot_of(table, first) for first, _, table in batch.spans]
        contexts = [first + 1 for first, _, _ in batch.spans]
        numbers[:, :count] = batch.token_ids, batch.positions, batch.prompt_lengths, slots, contexts
        numbers[3, count:] = _NO_SLOT
        numbers[4, count:] = 0

    def _fill_table(self, row: int, table: Sequence[int]) -> None:
        before, count = self._written[row]
        start = count if before is table else 0
        if start < len(table):
            self._host_tables.numpy()[row, start : len(table)] = table[start:]
        self._written[row] = (table, len(table))
