"""The comparison itself: what it lets pass and what it does not."""

from __future__ import annotations

import pytest
import torch

from tests.exact import Reference, assert_same, closeness, wrong_token

LOGITS = torch.tensor([[5.0, 1.0, 0.0], [2.0, 7.9990, 7.9995], [0.0, 0.0, 4.0]])
REFERENCE = Reference([0, 2, 2], LOGITS)


def test_the_same_answer_passes() -> None:
    assert wrong_token(REFERENCE, [0, 2, 2], "float32") is None


def test_parting_at_a_tie_passes_and_what_follows_is_not_compared() -> None:
    assert wrong_token(REFERENCE, [0, 1, 0], "float32") is None


@pytest.mark.parametrize("answer", [[1, 2, 2], [0, 0, 2], [0, 2, 0], [0, 2], [0, 2, 2, 1], []])
def test_another_token_or_length_is_wrong(answer: list[int]) -> None:
    assert wrong_token(REFERENCE, answer, "float32")
    with pytest.raises(AssertionError):
        assert_same([REFERENCE], [answer], "float32")


def test_a_step_is_bfloat16s_own() -> None:
    for best in (0.3, 1.0, 1.99, 7.9, 8.0, 100.0, -3.0):
        value = torch.tensor(best, dtype=torch.bfloat16)
        step = torch.nextafter(value.abs(), torch.tensor(torch.inf, dtype=torch.bfloat16)) - value.abs()
        assert closeness(value.item(), "bfloat16") == 2 * step.item()


def test_many_partings_are_too_many_even_at_ties() -> None:
    parted, same = [0, 1, 0], [0, 2, 2]
    assert_same([REFERENCE] * 200, [same] * 198 + [parted] * 2, "float32")
    with pytest.raises(AssertionError, match="parted"):
        assert_same([REFERENCE] * 200, [same] * 197 + [parted] * 3, "float32")
