"""Mixtures of experts beside their numbers: the dialects of their files, their rows, whole engines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import engine
from engine.models.config import ModelConfig
from engine.models.experts_config import ExpertsConfig
from engine.models.moe import mixture
from engine.types import CheckpointError, Level
from tests.engine.checkpoints import make_checkpoint
from tests.engine.conftest import OpenEngine
from tests.engine.families.shapes import EXPERTS
from tests.engine.harness import collect, edit_json, greedy, prompt, together

FAMILIES: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 5},
    "qwen3_moe": EXPERTS,
    "qwen2_moe": {**EXPERTS, "shared_expert_intermediate_size": 30},
}


@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
async def test_answers_are_the_same_after_a_sleep(
    tmp_path: Path, awake: OpenEngine, family: str, level: Level
) -> None:
    made = await awake(make_checkpoint(tmp_path, family, torch.bfloat16, **FAMILIES[family]))
    prompts = [prompt(length, seed=length) for length in (3, 300, 17, 64)]
    before = [answer.token_ids for answer in await together(made, prompts, 8)]
    await made.sleep(level)
    await made.wake()
    assert [answer.token_ids for answer in await together(made, prompts, 8)] == before


async def test_an_estimate_counts_every_expert(tmp_path: Path, awake: OpenEngine) -> None:
    directory = make_checkpoint(tmp_path, "qwen3_moe", **{**EXPERTS, "num_experts": 64})
    estimate = engine.estimate(str(directory))
    assert estimate is not None
    held = (await awake(directory)).footprint().weights
    assert 0 <= held - estimate.weights_bytes < 0.2 * estimate.weights_bytes + 2**21


@pytest.mark.parametrize(("family", "old", "new"), [("qwen3_moe", "num_local_experts", "num_experts")])
async def test_the_hubs_word_for_the_number_of_experts(
    tmp_path: Path, awake: OpenEngine, family: str, old: str, new: str
) -> None:
    directory = make_checkpoint(tmp_path, family, **FAMILIES[family])
    config = json.loads((directory / "config.json").read_text())
    parsed = ModelConfig.parse(config)
    assert parsed.experts is not None and parsed.experts.count == config[old] == 9
    edit_json(directory / "config.json", lambda config: config.update({new: config.pop(old)}))
    assert ModelConfig.parse(json.loads((directory / "config.json").read_text())) == parsed
    assert len((await collect(await awake(directory), prompt(9), greedy(4))).token_ids) == 4


@pytest.mark.parametrize("changes", [{"num_experts_per_tok": 10}, {"num_experts_per_tok": 0}])
def test_an_impossible_mixture_is_refused(tmp_path: Path, changes: dict[str, int]) -> None:
    directory = make_checkpoint(tmp_path, "qwen3_moe", **EXPERTS)
    edit_json(directory / "config.json", lambda config: config.update(changes))
    with pytest.raises(CheckpointError, match="of 9 experts"):
        engine.open(str(directory))


CONFIG = ExpertsConfig(count=6, per_token=3, inner_size=8, normalize=True, shared_size=None)


def slowly(x: torch.Tensor, name: str) -> torch.Tensor:
    """An expert whose rows cannot depend on each other."""
    return torch.stack([torch.sin(row * (int(name.strip(".")) + 1)) for row in x])


def test_a_row_is_the_same_in_any_company() -> None:
    torch.manual_seed(0)
    x, scores = torch.randn(41, 16), torch.randn(41, 6)
    whole = mixture(x, scores, CONFIG, slowly, "")
    for rows in (slice(0, 1), slice(7, 9), slice(3, 40)):
        assert torch.equal(mixture(x[rows], scores[rows], CONFIG, slowly, ""), whole[rows])


def test_all_rows_may_want_the_same_experts() -> None:
    x = torch.randn(5, 16)
    scores = torch.tensor([[9.0, 5.0, 1.0, -1.0, -2.0, -3.0]]).repeat(5, 1)
    weights = scores[0, :3].softmax(0)
    expected = sum(weight * slowly(x, f"{expert}.") for expert, weight in enumerate(weights))
    assert torch.allclose(mixture(x, scores, CONFIG, slowly, ""), expected, atol=1e-6)


@pytest.mark.parametrize(("count", "per_token", "fine"), [(8, 2, False), (60, 4, True), (128, 8, True)])
def test_many_small_experts_are_told_from_a_few_large_ones(count: int, per_token: int, fine: bool) -> None:
    config = ExpertsConfig(count=count, per_token=per_token, inner_size=8, normalize=True, shared_size=None)
    assert config.fine == fine
