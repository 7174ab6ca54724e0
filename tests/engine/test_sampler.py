"""The sampler draws from the distributions that the parameters mean, and the same seed draws the same."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, RepetitionPenaltyLogitsProcessor

from engine import sampler
from engine.penalties import History
from engine.sampler import SampleRow, sample, uniform
from engine.types import Level, SamplingParams
from tests.engine.conftest import OpenEngine
from tests.engine.harness import collect, prompt, together

DRAWS = 4000
LOGITS = [2.0, 1.5, 1.0, 0.9, 0.0, -0.5, -1.0, -3.0]

WIDE = (np.random.default_rng(3).normal(size=300) * 1.5).round(1).tolist()
"""Many tokens, some of them equally likely."""

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "cold": {"temperature": 0.5},
    "hot": {"temperature": 3.0},
    "top-k": {"top_k": 3},
    "top-k of one": {"top_k": 1},
    "top-k beyond the vocabulary": {"top_k": 50},
    "top-p": {"top_p": 0.7},
    "top-p of all": {"top_p": 1.0},
    "top-p of nothing": {"top_p": 0.0},
    "min-p": {"min_p": 0.3},
    "min-p of one": {"min_p": 1.0},
    "all at once": {"top_k": 6, "top_p": 0.9, "min_p": 0.15, "temperature": 1.7},
}


def params(**overrides: Any) -> SamplingParams:
    return SamplingParams(**{"max_tokens": 1, **overrides})


def row(
    p: SamplingParams,
    seed: int = 0,
    position: int = 0,
    *,
    prompt_ids: Sequence[int] = (),
    answer: Sequence[int] = (),
    banned: tuple[int, ...] = (),
) -> SampleRow:
    history = History(p, prompt_ids)
    for token in answer:
        history.add(token)
    return SampleRow(p, seed, position, history, banned=banned)


def tokens_of(logits: torch.Tensor, rows: Sequence[SampleRow]) -> list[int]:
    return [sampled.token_id for sampled in sample(logits, rows)]


def reference(logits: list[float], p: SamplingParams) -> np.ndarray:
    """Temperature, then top-k, then top-p of what is left, then min-p of what is left; one token at least."""
    scaled = np.array(logits, dtype=np.float64) / p.temperature
    order = np.argsort(-scaled, kind="stable")
    keep = order[: p.top_k] if p.top_k else order
    probs = np.exp(scaled[keep] - scaled.max())
    probs /= probs.sum()
    inside = np.cumsum(probs) - probs < p.top_p
    inside &= probs >= p.min_p * probs[0]
    inside[0] = True
    result = np.zeros(len(logits))
    result[keep[inside]] = probs[inside] / probs[inside].sum()
    return result


def draw(logits: list[float], p: SamplingParams, count: int, seed: int = 5) -> np.ndarray:
    rows = [row(p, seed, position) for position in range(count)]
    return np.array(tokens_of(torch.tensor([logits] * count), rows))


def chi_square(observed: np.ndarray, expected: np.ndarray) -> tuple[float, int]:
    """The statistic over the cells that may come, and its degrees of freedom."""
    assert not observed[expected == 0].any(), "a token came that the parameters exclude"
    cells = expected > 0
    wanted = expected[cells] * observed.sum()
    return float(((observed[cells] - wanted) ** 2 / wanted).sum()), int(cells.sum()) - 1


@pytest.mark.parametrize("name", CASES)
def test_draws_follow_the_distribution(name: str) -> None:
    p = params(**CASES[name])
    counts = np.bincount(draw(LOGITS, p, DRAWS), minlength=len(LOGITS))
    statistic, freedom = chi_square(counts, reference(LOGITS, p))
    # Mean n, variance 2n: five deviations is one chance in millions, and the seed is fixed.
    assert statistic <= freedom + 5 * (2 * freedom) ** 0.5


def test_the_comparison_would_see_a_wrong_distribution() -> None:
    counts = np.bincount(draw(LOGITS, params(temperature=1.15), DRAWS), minlength=len(LOGITS))
    statistic, freedom = chi_square(counts, reference(LOGITS, params()))
    assert statistic > freedom + 5 * (2 * freedom) ** 0.5


WIDE_CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "a nucleus among the first": {"top_p": 0.3},
    "a nucleus among the next": {"top_p": 0.7},
    "a nucleus beyond": {"top_p": 0.99},
    "top-k among the first": {"top_k": 25},
    "top-k among the next": {"top_k": 90},
    "top-k beyond": {"top_k": 200},
    "both": {"top_k": 150, "top_p": 0.98},
    "a small part, cold": {"top_p": 0.3, "temperature": 0.5},
    "min-p": {"min_p": 0.05},
    "min-p of a wide nucleus": {"min_p": 0.02, "top_p": 0.99},
}


@pytest.fixture
def few_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "_FIRST", 32)
    monkeypatch.setattr(sampler, "_THEN", 100)


@pytest.mark.usefixtures("few_at_first")
@pytest.mark.parametrize("name", WIDE_CASES)
def test_draws_from_many_tokens_follow_the_distribution(name: str) -> None:
    """Counted in cells of about equal probability, since most tokens come never."""
    p, cells = params(**WIDE_CASES[name]), 15
    expected = reference(WIDE, p)
    cell = np.minimum((expected.cumsum() * cells).astype(int), cells - 1)
    drawn = draw(WIDE, p, 600)
    assert (expected[drawn] > 0).all(), "a token came that the parameters exclude"
    wanted = np.bincount(cell, expected, minlength=cells)
    statistic, freedom = chi_square(np.bincount(cell[drawn], minlength=cells), wanted)
    assert statistic <= freedom + 5 * (2 * freedom) ** 0.5


@pytest.mark.usefixtures("few_at_first")
@pytest.mark.parametrize("name", WIDE_CASES)
def test_every_token_that_may_come_does_and_no_other(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With random numbers evenly over [0, 1), the last one just below its end."""
    evenly = [*np.arange(0, 1, 1 / 500), 1 - 2**-53]
    monkeypatch.setattr(sampler, "uniform", lambda seed, position: evenly[position])
    p = params(**WIDE_CASES[name])
    came, expected = set(draw(WIDE, p, len(evenly))), reference(WIDE, p)
    assert came <= set(np.flatnonzero(expected))
    assert came >= set(np.flatnonzero(expected > 1 / 499))


def test_the_end_of_the_distribution_is_no_token_that_may_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "uniform", lambda seed, position: 1 - 2**-53)
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(200, 1000, generator=generator) * 3
    logits[:, 900:] = -torch.inf
    for narrow in ({}, {"top_p": 0.9}, {"min_p": 0.1}, {"top_k": 50}):
        tokens = torch.tensor(tokens_of(logits.clone(), [row(params(**narrow))] * 200))
        assert (tokens < 900).all()
        assert (logits.gather(1, tokens[:, None]) > -torch.inf).all()


def test_rows_of_unlike_parameters_each_get_their_own() -> None:
    cases = [params(**case) for case in CASES.values()]
    rows = [row(p, 5, position) for position in range(500) for p in cases]
    tokens = np.array(tokens_of(torch.tensor([LOGITS] * len(rows)), rows)).reshape(500, len(cases))
    for column, p in enumerate(cases):
        assert tokens[:, column].tolist() == draw(LOGITS, p, 500).tolist()


@pytest.mark.parametrize(
    "narrow", [{"temperature": 0.0}, {"top_p": 1e-9}, {"top_p": 0.0}, {"top_k": 1}, {"temperature": 1e-30}]
)
def test_the_narrowest_settings_are_greedy(narrow: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 100, generator=generator)
    rows = [row(params(**narrow), 1, position) for position in range(50)]
    assert tokens_of(logits.clone(), rows) == logits.argmax(-1).tolist()


@pytest.mark.parametrize("temperature", [0.0, 1.0, 100.0])
def test_banned_tokens_never_come(temperature: float) -> None:
    rows = [row(params(temperature=temperature), 3, i, banned=(0, 1, 4)) for i in range(400)]
    tokens = set(tokens_of(torch.tensor([LOGITS] * 400), rows))
    assert tokens.isdisjoint({0, 1, 4})
    assert tokens == ({2} if temperature == 0 else tokens)


def test_banning_in_one_row_leaves_the_others() -> None:
    rows = [row(params(temperature=0), banned=(0,)), row(params(temperature=0))]
    assert tokens_of(torch.tensor([LOGITS] * 2), rows) == [1, 0]


def penalised(logits: np.ndarray, p: SamplingParams, prompt_ids: list[int], answer: list[int]) -> np.ndarray:
    """Each rule on its own, token by token."""
    result = logits.astype(np.float64)
    for token in range(len(logits)):
        if token in prompt_ids or token in answer:
            result[token] *= p.repetition_penalty if result[token] < 0 else 1 / p.repetition_penalty
        if token in answer:
            result[token] -= p.presence_penalty
        result[token] -= p.frequency_penalty * answer.count(token)
        result[token] += p.logit_bias.get(token, 0)
    return result


PENALTIES: dict[str, dict[str, Any]] = {
    "repetition": {"repetition_penalty": 1.3},
    "repetition below one": {"repetition_penalty": 0.5},
    "presence": {"presence_penalty": 1.5},
    "presence below zero": {"presence_penalty": -2.0},
    "frequency": {"frequency_penalty": 0.7},
    "frequency below zero": {"frequency_penalty": -0.7},
    "bias": {"logit_bias": {3: 100.0, 5: -100.0, 1: 0.25}},
    "all": {
        "repetition_penalty": 1.2,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.25,
        "logit_bias": {0: 1.5, 2: -1.5},
    },
    "none": {},
}


@pytest.mark.parametrize("name", PENALTIES)
def test_penalties_and_bias_are_exact(name: str) -> None:
    """Of many rows in one batch, each with its own tokens behind it and every second without a penalty."""
    random = np.random.default_rng(1)
    logits = random.normal(size=(60, 10)).astype(np.float32)
    prompts, answers = random.integers(10, size=(60, 4)).tolist(), random.integers(10, size=(60, 7)).tolist()
    settings_of = [params(temperature=0, **(PENALTIES[name] if at % 2 else {})) for at in range(60)]
    lines = list(zip(settings_of, prompts, answers, strict=True))
    adjusted = torch.from_numpy(logits.copy())
    rows = [row(p, prompt_ids=before, answer=after) for p, before, after in lines]
    tokens = tokens_of(adjusted, rows)
    expected = np.stack([penalised(line, *given) for line, given in zip(logits, lines, strict=True)])
    np.testing.assert_allclose(adjusted.numpy(), expected, rtol=1e-6, atol=1e-6)
    assert tokens == expected.argmax(-1).tolist()


@pytest.mark.parametrize("penalty", [0.5, 1.0, 1.3, 20.0])
def test_the_repetition_penalty_is_that_of_transformers(penalty: float) -> None:
    """Of many rows, each with its own tokens behind it; some of them more than once."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(200, 10, generator=generator)
    seen = torch.randint(10, (200, 6), generator=generator)
    expected = RepetitionPenaltyLogitsProcessor(penalty)(seen, logits.clone())
    greedy = params(temperature=0, repetition_penalty=penalty)
    rows = [row(greedy, 0, 6, prompt_ids=ids[:3], answer=ids[3:]) for ids in seen.tolist()]
    assert tokens_of(logits.clone(), rows) == expected.argmax(-1).tolist()
    drawn = params(repetition_penalty=penalty)
    rows = [row(drawn, 3, position, prompt_ids=ids) for position, ids in enumerate(seen.tolist())]
    plain = [row(params(), 3, position) for position in range(200)]
    assert tokens_of(logits.clone(), rows) == tokens_of(expected, plain)


@pytest.mark.parametrize("penalty", [5e-324, 1e-30, 1e30, 1.7e308])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_most_extreme_penalties_are_survived(penalty: float, temperature: float) -> None:
    logits = torch.tensor([[3.0, -3.0, 0.0, 1.0]] * 2)
    extreme = row(params(temperature=temperature, repetition_penalty=penalty), prompt_ids=(0, 1, 2))
    plain = row(params(temperature=temperature), seed=1)
    alone = sample(logits[1:].clone(), [plain])
    token, neighbour = sample(logits, [extreme, plain])
    assert logits.isfinite().all()
    assert token.token_id == 0 if penalty < 1 else token.token_id != 1
    assert neighbour == alone[0]


def test_the_penalty_of_one_row_leaves_the_others_and_lifts_no_ban() -> None:
    strict = params(temperature=0, repetition_penalty=4.0)
    rows = [row(strict, prompt_ids=[0]), row(params(temperature=0), prompt_ids=[0])]
    assert tokens_of(torch.tensor([LOGITS] * 2), rows) == [1, 0]
    encouraged = params(temperature=0, repetition_penalty=0.1, logit_bias={2: 100.0})
    assert tokens_of(torch.tensor([LOGITS]), [row(encouraged, banned=(2,), prompt_ids=[2])]) == [0]


async def test_an_answer_under_the_penalty_is_that_of_transformers(llama: Path, awake: OpenEngine) -> None:
    engine = await awake(llama)
    whole = {"max_tokens": 40, "min_tokens": 40, "temperature": 0}
    answer = await collect(engine, prompt(9), params(repetition_penalty=1.8, **whole))
    model: Any = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
    theirs = model.generate(
        torch.tensor([prompt(9)]),
        max_new_tokens=40,
        min_new_tokens=40,
        do_sample=False,
        repetition_penalty=1.8,
    )
    assert answer.token_ids == theirs[0, 9:].tolist()
    assert answer.token_ids != (await collect(engine, prompt(9), params(**whole))).token_ids


@given(
    others=st.lists(
        st.fixed_dictionaries(
            {
                "temperature": st.sampled_from([0.0, 0.3, 1.0]),
                "top_k": st.sampled_from([0, 1, 3, 17, 1000]),
                "top_p": st.sampled_from([0.1, 0.9, 1.0]),
            }
        ),
        max_size=4,
    ),
    top_k=st.sampled_from([0, 2, 8, 40, 1500]),
    top_p=st.sampled_from([0.5, 0.99, 1.0]),
    seed=st.integers(0, 2**64),
)
@settings(max_examples=60)
def test_neighbours_do_not_change_a_draw_even_among_ties(
    others: list[dict[str, Any]], top_k: int, top_p: float, seed: int
) -> None:
    """bfloat16 logits often tie, and which of the tied is drawn must not hang on who else is in the batch."""
    generator = torch.Generator().manual_seed(7)
    logits = (torch.randn(len(others) + 1, 2000, generator=generator) * 2).round()
    mine = row(params(top_k=top_k, top_p=top_p), seed, 11)
    alone = tokens_of(logits[:1].clone(), [mine])
    rows = [mine] + [row(params(**other), 1, 2) for other in others]
    assert tokens_of(logits.clone(), rows)[0] == alone[0]


def test_random_numbers_are_even_and_depend_on_seed_and_position_only() -> None:
    numbers = np.array([[uniform(seed, position) for position in range(200)] for seed in range(-50, 50)])
    assert (numbers >= 0).all()
    assert (numbers < 1).all()
    assert len(np.unique(numbers)) == numbers.size
    assert np.bincount((numbers.ravel() * 10).astype(int), minlength=10).min() > 1800
    assert abs(np.corrcoef(numbers[:-1].ravel(), numbers[1:].ravel())[0, 1]) < 0.03
    assert abs(np.corrcoef(numbers[:, :-1].ravel(), numbers[:, 1:].ravel())[0, 1]) < 0.03
    assert uniform(3, 4) == uniform(3, 4)


SAMPLED = {"temperature": 1.0, "top_p": 0.95, "ignore_eos": True}


async def test_a_seed_says_the_same_with_neighbours_and_after_sleeps(llama: Path, awake: OpenEngine) -> None:
    engine = await awake(llama)
    seeded = params(seed=42, **SAMPLED | {"max_tokens": 25})
    alone = await collect(engine, prompt(9), seeded)
    short = SAMPLED | {"max_tokens": 9}
    crowd = [collect(engine, prompt(30, seed=i), params(seed=i, **short)) for i in range(3)]
    among, *_ = await asyncio.gather(collect(engine, prompt(9), seeded), *crowd)
    assert among.token_ids == alone.token_ids
    levels: tuple[Level, ...] = (1, 2)
    for level in levels:
        await engine.sleep(level)
        await engine.wake()
        assert (await collect(engine, prompt(9), seeded)).token_ids == alone.token_ids


async def test_other_seeds_and_none_say_something_else(llama: Path, awake: OpenEngine) -> None:
    engine = await awake(llama)
    said = {
        tuple((await collect(engine, prompt(9), params(seed=seed, **SAMPLED | {"max_tokens": 12}))).token_ids)
        for seed in (1, 2, -1, 2**70, None, None)
    }
    assert len(said) == 6
    assert len({tuple(a.token_ids) for a in await together(engine, [prompt(9)] * 2, 12)}) == 1
