"""Tables that come, grow and go between steps are on the device as they are, always at the same place."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.batch import Batch
from engine.blocks import BLOCK_SIZE
from engine.decode_inputs import DecodeInputs

ROWS, BLOCKS = 4, 20
CPU = torch.device("cpu")


@given(data=st.data())
@settings(max_examples=40)
def test_a_step_reads_what_its_sequences_are(data: st.DataObject) -> None:
    inputs = DecodeInputs(ROWS, BLOCKS, CPU)
    plan, tokens = inputs.plan(ROWS), inputs.tokens(ROWS)
    numbers = iter(range(1, 100_000))
    tables: list[list[int]] = []
    for _ in range(data.draw(st.integers(1, 12))):
        for table in tables:
            table += [next(numbers) for _ in range(data.draw(st.integers(0, BLOCKS - len(table))))]
        tables = [table for table in tables if data.draw(st.booleans())]
        while len(tables) < ROWS and data.draw(st.booleans()):
            tables.append([next(numbers) for _ in range(data.draw(st.integers(1, 3)))])
        tables = data.draw(st.permutations(tables))
        batch = Batch()
        for table in tables:
            position = data.draw(st.integers(0, len(table) * BLOCK_SIZE - 1))
            batch.add(range(position + 1), position, 1, 5, table)
        inputs.fill(batch, ROWS)
        count = len(tables)
        assert tokens[0][:count].tolist() == tokens[1][:count].tolist() == batch.positions
        assert tokens[2][:count].tolist() == [5] * count
        for row, (table, position) in enumerate(zip(tables, batch.positions, strict=True)):
            assert plan.tables[row, : len(table)].tolist() == table
            block, within = divmod(position, BLOCK_SIZE)
            assert plan.slots[row] == table[block] * BLOCK_SIZE + within
            assert plan.extents[row] == position + 1
        assert plan.slots[count:].tolist() == [-1] * (ROWS - count)
        assert plan.extents[count:].tolist() == [0] * (ROWS - count)


def test_only_what_has_grown_is_written() -> None:
    inputs = DecodeInputs(1, BLOCKS, CPU)
    table = [1, 2]

    def fill() -> list[int]:
        batch = Batch()
        batch.add([0], 0, 1, 1, table)
        inputs.fill(batch, 1)
        return inputs.plan(1).tables[0, :3].tolist()

    assert fill() == [1, 2, 0]
    table[0] = 9  # which no sequence ever does
    table.append(3)
    assert fill() == [1, 2, 3]


def test_rows_that_are_cleared_are_none() -> None:
    inputs = DecodeInputs(2, BLOCKS, CPU)
    batch = Batch()
    batch.add([0], 0, 1, 1, [3])
    inputs.fill(batch, 2)
    inputs.clear()
    assert inputs.plan(2).slots.tolist() == [-1, -1]
    assert inputs.plan(2).extents.tolist() == [0, 0]
