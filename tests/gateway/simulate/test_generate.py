"""What the made-up loads promise."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.simulate.generate import DAY, LARGEST, LOADS, SMALLEST, Load, generate, made_up_size
from gateway.simulate.trace import Request


def made(
    load: Load, seed: int = 1, models: int = 20, requests: int = 4000, seconds: float = DAY
) -> list[Request]:
    return list(generate(load, models=models, requests=requests, seconds=seconds, seed=seed))


@settings(max_examples=50)
@given(
    st.sampled_from(LOADS), st.integers(), st.integers(1, 30), st.integers(1, 200), st.floats(60.0, 10 * DAY)
)
def test_loads_are_whole_ordered_and_repeatable(
    load: Load, seed: int, models: int, requests: int, seconds: float
) -> None:
    trace = made(load, seed, models, requests, seconds)
    assert len(trace) == requests
    assert all(before.at <= after.at for before, after in pairwise(trace))
    assert all(request.prompt_tokens >= 1 and request.max_tokens >= 1 for request in trace)
    assert len({request.model for request in trace}) <= models
    assert trace == made(load, seed, models, requests, seconds)


@pytest.mark.parametrize("load", LOADS)
def test_seeds_differ(load: Load) -> None:
    assert made(load, 1) != made(load, 2)


def test_popularity_is_zipfs() -> None:
    counts = Counter(request.model for request in made("zipf", requests=40_000))
    assert counts["model-01"] / counts["model-02"] == pytest.approx(2.0, rel=0.1)
    assert counts["model-01"] / counts["model-10"] == pytest.approx(10.0, rel=0.2)


def test_by_day_a_model_is_asked_for_at_its_hour() -> None:
    hours = Counter(int(r.at / 3600) for r in made("daily", requests=20_000) if r.model == "model-01")
    busiest = hours.most_common(1)[0][0]
    around = sum(hours[(busiest + offset) % 24] for offset in range(-6, 7))
    assert around > 0.75 * hours.total()
    assert hours[(busiest + 12) % 24] < 0.15 * hours[busiest]


def test_bursts_are_dense_and_far_apart() -> None:
    trace = made("bursts", models=200, requests=2000)
    gaps = []
    for name in {request.model for request in trace}:
        gaps += [b.at - a.at for a, b in pairwise([r for r in trace if r.model == name])]
    short = sum(gap < 60.0 for gap in gaps)
    assert 0.85 < short / len(gaps) < 0.99
    assert max(gaps) > 3600.0


def test_sizes_are_a_models_own() -> None:
    sizes = {made_up_size(f"model-{number}", 1) for number in range(500)}
    assert len(sizes) == 500
    assert SMALLEST <= min(sizes) < 1e9 < 20e9 < max(sizes) <= LARGEST
    assert made_up_size("a", 1) == made_up_size("a", 1) != made_up_size("a", 2)
