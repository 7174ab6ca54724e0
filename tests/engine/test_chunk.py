"""The size of a prompt's chunk, on machines whose steps take a known time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.chunk import LARGEST, STRETCH, UNIT, StepBudget

Machine = Callable[[int, int], float]
"""From decoding rows and tokens of prompts to the seconds of a step."""


def even(decoding: int, prefill: int) -> float:
    return 0.040 + 0.002 * decoding + 0.0005 * prefill


def settle(budget: StepBudget, machine: Machine, decoding: int = 8, steps: int = 100) -> int:
    """Ordinary steps, then a long prompt beside them; the chunk in the end."""
    for _ in range(5):
        budget.observe(decoding, 0, machine(decoding, 0))
    for _ in range(steps):
        chunk = budget.prefill_tokens(decoding)
        budget.observe(decoding, chunk, machine(decoding, chunk))
    return budget.prefill_tokens(decoding)


def test_alone_a_prompt_gets_the_largest_chunk_and_the_smallest_while_nothing_is_known() -> None:
    budget = StepBudget()
    assert budget.prefill_tokens(0) == LARGEST == 512
    assert budget.prefill_tokens(3) == UNIT
    settle(budget, even)
    assert budget.prefill_tokens(0) == LARGEST


@given(
    base=st.floats(0.001, 0.5), per_row=st.floats(0, 0.01), per_token=st.floats(1e-5, 0.02),
    decoding=st.integers(1, 64),
)  # fmt: skip
def test_a_mixed_step_takes_little_longer_than_an_ordinary_one(
    base: float, per_row: float, per_token: float, decoding: int
) -> None:
    """Or computes as little as a step can."""

    def machine(rows: int, tokens: int) -> float:
        return base + per_row * rows + per_token * tokens

    budget = StepBudget()
    budget.observe(0, 128, machine(0, 128))
    chunk = settle(budget, machine, decoding)
    assert chunk % UNIT == 0 and UNIT <= chunk <= LARGEST
    ordinary = machine(decoding, 0)
    assert chunk == UNIT or machine(decoding, chunk) <= STRETCH * ordinary * 1.001
    wasted = STRETCH * ordinary - machine(decoding, chunk)
    assert chunk == LARGEST or wasted <= per_token * UNIT * 2, "it could have been larger"


def test_more_who_wait_than_run_go_first() -> None:
    budget = StepBudget()
    small = settle(budget, even)
    for decoding, prompts in ((1, 1), (8, 1), (8, 7), (12, 4)):
        assert budget.prefill_tokens(decoding, prompts) <= small
    for decoding, prompts in ((1, 2), (8, 8), (4, 12)):
        assert budget.prefill_tokens(decoding, prompts) == LARGEST // 2


def test_chunks_shrink_as_a_longer_context_makes_them_dearer() -> None:
    budget = StepBudget()
    before = settle(budget, even)
    after = settle(budget, lambda rows, tokens: even(rows, 0) + 0.002 * tokens)
    assert (before, after) == (48, 8)
    assert settle(budget, even) == before, "and grow again"


def test_rows_that_are_free_while_weights_are_read_are_made_use_of() -> None:
    """Up to 24 rows cost nothing beyond what a step takes anyway."""

    def machine(rows: int, tokens: int) -> float:
        return 0.040 + 0.002 * max(0, rows + tokens - 24)

    budget = StepBudget()
    settle(budget, machine)
    took = []
    for _ in range(100):
        chunk = budget.prefill_tokens(8)
        took.append(machine(8, chunk))
        budget.observe(8, chunk, took[-1])
    assert max(took) < 2 * machine(8, 0)
    assert sum(one > STRETCH * machine(8, 0) for one in took) <= 25, "it is not soon tried again"


def test_no_noise_makes_a_step_very_long() -> None:
    """A mixed step that was as fast as an ordinary one says little of what a larger chunk would take."""
    budget = StepBudget()
    budget.observe(8, 0, 0.050)
    for _ in range(10):
        budget.observe(8, 16, 0.050)
    assert budget.prefill_tokens(8) <= 112


@pytest.mark.parametrize("decoding", [1, 6, 9, 64])
def test_other_numbers_of_rows_are_judged_by_the_nearest_that_has_been_seen(decoding: int) -> None:
    budget = StepBudget()
    assert settle(budget, even, decoding=8) == budget.prefill_tokens(decoding)
