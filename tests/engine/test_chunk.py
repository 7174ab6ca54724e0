"""How much of the prompts a step computes, on machines whose steps and layers take a known time."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.chunk import BESIDE, LARGEST, LAYERS, SEVERAL, UNIT, StepBudget


def learned(ordinary: float = 0.1, per_token: float = 0.0002, decoding: int = 8) -> StepBudget:
    """From a few steps, and a prompt's layers."""
    budget = StepBudget()
    for _ in range(5):
        budget.observe_step(decoding, ordinary)
        budget.observe_layer(LARGEST, per_token * LARGEST)
    return budget


def test_alone_a_prompt_gets_the_largest_chunk_at_once_and_the_smallest_while_nothing_is_known() -> None:
    budget = StepBudget()
    assert budget.tokens(0) == LARGEST == 512
    assert math.isinf(budget.seconds(0))
    assert budget.tokens(3) == UNIT
    assert budget.seconds(3) == 0
    assert learned().tokens(0) == LARGEST


@given(
    ordinary=st.floats(0.001, 0.5), per_token=st.floats(1e-7, 0.002), decoding=st.integers(1, 64),
)  # fmt: skip
def test_a_step_with_prompts_takes_little_longer_than_an_ordinary_one(
    ordinary: float, per_token: float, decoding: int
) -> None:
    """Or computes a layer of as little as there is."""
    budget = learned(ordinary, per_token, decoding)
    seconds, tokens = budget.seconds(decoding), budget.tokens(decoding)
    assert seconds == pytest.approx((1 + BESIDE) * ordinary)
    assert tokens % UNIT == 0 and UNIT <= tokens <= LARGEST
    layer = per_token * tokens
    beside = (seconds - ordinary) / LAYERS
    assert tokens == UNIT or layer <= beside * 1.001
    assert tokens == LARGEST or layer >= beside - 2 * UNIT * per_token, "it could have been larger"


def test_more_who_wait_than_run_go_first() -> None:
    budget = learned()
    for decoding, prompts in ((1, 2), (8, 8), (4, 12)):
        assert math.isinf(budget.seconds(decoding, prompts))
        assert budget.tokens(decoding, prompts) == LARGEST
    for decoding, prompts in ((8, 2), (8, 7), (12, 4)):
        assert budget.seconds(decoding, prompts) == pytest.approx((1 + SEVERAL) * 0.1)
    for decoding in (1, 8):
        assert budget.seconds(decoding, 1) == pytest.approx((1 + BESIDE) * 0.1)


def test_chunks_shrink_as_a_longer_context_makes_layers_dearer() -> None:
    budget = learned()
    usual = budget.tokens(8)
    assert usual > UNIT
    for _ in range(20):
        budget.observe_layer(80, 80 * 0.0008)
    assert budget.tokens(8) == 16
    for _ in range(40):
        budget.observe_layer(32, LARGEST / 8 * 0.0002)
    assert budget.tokens(8) == usual, "and grow again"


def test_a_small_chunk_says_little_of_what_a_large_one_would_take() -> None:
    """One token costs nearly as much as sixty."""
    budget = learned()
    for _ in range(50):
        budget.observe_layer(1, 0.0128)
    assert budget.tokens(8) == learned().tokens(8)


@pytest.mark.parametrize("decoding", [1, 6, 9, 64])
def test_other_numbers_of_rows_are_judged_by_the_nearest_that_has_been_seen(decoding: int) -> None:
    budget = learned(decoding=8)
    assert budget.seconds(8) == budget.seconds(decoding)
    budget.observe_step(64, 1.0)
    assert budget.seconds(60) == pytest.approx(1 + BESIDE)


def test_steps_beside_prompts_are_no_measure_of_those_without() -> None:
    budget = StepBudget()
    budget.observe_step(8, 0.3, alone=False)
    assert budget.seconds(8) == pytest.approx((1 + BESIDE) * 0.3), "but better than none"
    for _ in range(20):
        budget.observe_step(8, 0.1)
    budget.observe_step(8, 0.3, alone=False)
    assert budget.seconds(8) == pytest.approx((1 + BESIDE) * 0.1, rel=0.01)
