"""Draws from logits against the sampler's own parameters: the same tokens may come, as often."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from engine.kernels import choose as kernel
from engine.kernels.choose import choose
from engine.penalties import History
from engine.sampler import SampleRow, choose_in_one_launch, uniform
from engine.types import SamplingParams
from tests.engine.test_sampler import chi_square, reference

CASES: dict[str, dict[str, Any]] = {
    "plain, but warmer": {"temperature": 1.3},
    "top-p": {"top_p": 0.7},
    "top-k": {"top_k": 6},
    "min-p": {"min_p": 0.1},
    "all": {"top_k": 9, "top_p": 0.8, "min_p": 0.02, "temperature": 1.3},
    "one": {"top_k": 1},
    "the narrowest nucleus": {"top_p": 1e-9},
    "more than there are": {"top_k": 1000},
}
VOCABULARY, TILE = 20, 16


def drawn(logits: torch.Tensor, settings: list[tuple[float, ...]], device: torch.device) -> list[int]:
    out = torch.full((len(settings),), -7, device=device)
    choose(logits.to(device), torch.tensor(settings, device=device), out)
    found: list[int] = out.tolist()
    return found


@pytest.fixture(autouse=True)
def two_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_TILE", TILE)


def check_draws(name: str, draws: int, device: torch.device) -> None:
    """Numbers that are evenly spread find every token as often as it should come, but for one."""
    params = SamplingParams(**{"max_tokens": 1, **CASES[name]})
    logits = torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(3)) * 2
    wanted = reference(logits.tolist(), params)
    draws = min(draws, 4 * int((wanted > 0).sum()))
    numbers = [(index + 0.5) / draws for index in range(draws)]
    settings = [(params.temperature, params.top_k, params.top_p, params.min_p, u) for u in numbers]
    found = drawn(logits.expand(draws, -1).contiguous(), settings, device)
    counts = np.bincount(found, minlength=VOCABULARY)
    assert not counts[wanted == 0].any()
    assert np.abs(counts - wanted * draws).max() <= 1.01
    statistic, freedom = chi_square(counts, wanted)
    assert statistic <= max(freedom, 1)


@pytest.mark.parametrize("name", CASES)
def test_draws_follow_the_distribution(
    name: str, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "_TILE", 2 * TILE)
    check_draws(name, 24, device)


@pytest.mark.parametrize("name", ["plain, but warmer", "all"])
def test_draws_from_several_tiles_follow_it_too(
    name: str, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "_TILE", TILE // 2)
    check_draws(name, 8, device)


def test_rows_of_unlike_settings_each_get_their_own(device: torch.device) -> None:
    logits = torch.zeros(4, VOCABULARY)
    logits[:, 18] = 5
    logits[1, 3] = 5
    logits[3, 7] = torch.inf
    settings = [
        (0.0, 0, 1.0, 0.0, 0.9),
        (0.0, 0, 1.0, 0.0, 0.9),
        (1.0, 1, 1.0, 0.0, 0.9),
        (0.0, 0, 1.0, 0.0, 0.0),
    ]
    assert drawn(logits, settings, device) == [18, 3, 18, 7]


def test_the_first_of_equals_is_the_most_likely(device: torch.device) -> None:
    logits = torch.zeros(2, VOCABULARY)
    logits[0, [5, 9]] = logits[1, [TILE - 1, TILE, TILE + 2]] = 3.0
    assert drawn(logits, [(0.0, 0, 1.0, 0.0, 0.9)] * 2, device) == [5, TILE - 1]


def test_what_is_forbidden_never_comes(device: torch.device) -> None:
    logits = torch.full((3, VOCABULARY), -torch.inf)
    logits[:, 15], logits[:, 16] = 0.0, -1.0
    settings = [(1.0, k, p, 0.0, 0.999999) for k, p in ((0, 1.0), (10, 0.99), (0, 0.2))]
    assert drawn(logits, settings, device) == [16, 16, 15]


def test_the_end_of_the_distribution_is_a_token_that_may_come(device: torch.device) -> None:
    logits = torch.full((1, VOCABULARY), -torch.inf)
    logits[0, :7] = torch.linspace(0, 1, 7)
    assert drawn(logits, [(1.0, 0, 1.0, 0.0, 1.0)], device) == [6]


def test_a_row_draws_the_same_in_any_company(device: torch.device) -> None:
    logits = torch.randn(3, VOCABULARY, generator=torch.Generator().manual_seed(1))
    settings = [(0.8, 12, 0.9, 0.0, u) for u in (0.1, 0.5, 0.9)]
    alone = [drawn(logits[row : row + 1], settings[row : row + 1], device)[0] for row in range(3)]
    assert drawn(logits, settings, device) == alone


def test_the_sampler_hands_over_what_a_row_asks_for(device: torch.device) -> None:
    logits = torch.randn(3, VOCABULARY, generator=torch.Generator().manual_seed(2)).to(device)
    asked = [{"temperature": 0.0}, {"top_k": 3}, {"top_p": 0.5, "min_p": 0.01, "temperature": 0.7}]
    rows = []
    for position, one in enumerate(asked):
        params = SamplingParams(**{"max_tokens": 1, **one})
        rows.append(SampleRow(params, 11, position, History(params, ())))
    settings = [
        (row.params.temperature, row.params.top_k, row.params.top_p, row.params.min_p, uniform(11, position))
        for position, row in enumerate(rows)
    ]
    assert choose_in_one_launch(logits, rows).tolist() == drawn(logits, settings, device)
