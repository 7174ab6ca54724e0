"""Tables that come, grow and go between steps are on the device as they are, always at the same place."""

from __future__ import annotations

from collections.abc import Callable

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.batch import Batch
from engine.blocks import BLOCK_SIZE
from engine.decode_inputs import DecodeInputs

ROWS, BLOCKS = 4, 20
CPU = torch.device("cpu")
ANY = (0.0,) * 5


@given(data=st.data())
@settings(max_examples=40)
def test_a_step_reads_what_its_sequences_are(data: st.DataObject) -> None:
    inputs = DecodeInputs(ROWS, BLOCKS, CPU)
    plan, places, (asked, chosen) = inputs.plan(ROWS), inputs.places(ROWS), inputs.choice(ROWS)
    numbers = iter(range(1, 100_000))
    tables: list[list[int]] = []
    for _ in range(data.draw(st.integers(1, 12))):
        for table in tables:
            table += [next(numbers) for _ in range(data.draw(st.integers(0, BLOCKS - len(table))))]
        tables = [table for table in tables if data.draw(st.booleans())]
        while not tables or (len(tables) < ROWS and data.draw(st.booleans())):
            tables.append([next(numbers) for _ in range(data.draw(st.integers(1, 3)))])
        tables = data.draw(st.permutations(tables))
        batch = Batch()
        for table in tables:
            position = data.draw(st.integers(0, len(table) * BLOCK_SIZE - 1))
            batch.add([position], position, 5, table)
        count = len(tables)
        wanted = [(0.5, float(next(numbers)), 1.0, 0.0, 0.25) for _ in tables]
        inputs.fill(batch, ROWS, wanted)
        assert inputs.token_ids(ROWS)[:count].tolist() == places[0][:count].tolist() == batch.positions
        assert places[1][:count].tolist() == [5] * count
        assert asked.tolist() == [list(one) for one in wanted] + [list(ANY)] * (ROWS - count)
        for row, (table, position) in enumerate(zip(tables, batch.positions, strict=True)):
            assert plan.tables[row, : len(table)].tolist() == table
            block, within = divmod(position, BLOCK_SIZE)
            assert plan.slots[row] == table[block] * BLOCK_SIZE + within
            assert plan.extents[row] == position + 1
        assert plan.slots[count:].tolist() == [-1] * (ROWS - count)
        assert plan.extents[count:].tolist() == [0] * (ROWS - count)
        chosen.copy_(torch.tensor([next(numbers) for _ in range(ROWS)]))
        after = data.draw(st.lists(st.integers(0, ROWS - 1), min_size=count, max_size=count))
        inputs.fill(batch, ROWS, wanted, after)
        assert inputs.token_ids(ROWS)[:count].tolist() == [chosen[row] for row in after]


def batch_of(*tables: list[int]) -> Batch:
    batch = Batch()
    for table in tables:
        batch.add([0], 0, 1, table)
    return batch


def test_only_what_has_grown_is_written() -> None:
    inputs = DecodeInputs(1, BLOCKS, CPU)
    table = [1, 2]

    def fill() -> list[int]:
        found = []
        for _ in range(2):  # each twin has it
            inputs.fill(batch_of(table), 1, [ANY])
            found.append(inputs.plan(1).tables[0, :3].tolist())
        assert found[0] == found[1]
        return found[0]

    assert fill() == [1, 2, 0]
    table[0] = 9  # which no sequence ever does
    table.append(3)
    assert fill() == [1, 2, 3]


def test_rows_that_are_cleared_are_none() -> None:
    inputs = DecodeInputs(2, BLOCKS, CPU)
    inputs.fill(batch_of([3]), 2, [ANY])
    inputs.clear()
    assert inputs.plan(2).slots.tolist() == [-1, -1]
    assert inputs.plan(2).extents.tolist() == [0, 0]
    assert inputs.token_ids(2).tolist() == [0, 0]


def test_a_twin_is_filled_when_the_step_that_it_was_for_is_done() -> None:
    """That is the one before the last; the last may still be under way."""
    inputs = DecodeInputs(1, BLOCKS, CPU)
    waited: list[int] = []

    def step(number: int) -> Callable[[], list[int]]:
        inputs.fill(batch_of([number]), 1, [ANY])
        inputs.choice(1)[1].fill_(number)
        return inputs.chosen(1, lambda: lambda: waited.append(number))

    step(1)
    second = step(2)
    assert waited == []
    third = step(3)
    assert waited == [1]
    assert (second(), third()) == ([2], [3])
    assert waited == [1, 2, 3]
