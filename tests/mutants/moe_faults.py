"""Planted faults in mixtures of experts, and the test that must catch each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from engine.models import config, decoder, families, moe
from engine.models.experts_config import ExpertsConfig
from tests.mutants.engine_faults import FAULTS, caught_by, change_result

__all__ = ["FAULTS"]

NUMBERS = "families/test_numbers.py::test_float32"


def misread(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    def change(parsed: ExpertsConfig | None) -> ExpertsConfig | None:
        return parsed and replace(parsed, **changes)

    change_result(monkeypatch, config.ExpertsConfig, "parse", change)


@caught_by(f"{NUMBERS}[mixtral]")
def weights_do_not_add_up_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    misread(monkeypatch, normalize=False)


@caught_by(f"{NUMBERS}[qwen3-moe-some]")
def weights_always_add_up_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    misread(monkeypatch, normalize=True)


@caught_by(f"{NUMBERS}[qwen3-moe]")
def one_expert_too_few(monkeypatch: pytest.MonkeyPatch) -> None:
    misread(monkeypatch, per_token=2)


@caught_by(f"{NUMBERS}[qwen2-moe]")
def the_shared_expert_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    misread(monkeypatch, shared_size=None)


@caught_by(f"{NUMBERS}[qwen3-moe-some]")
def scores_are_weighed_among_the_chosen_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def route(scores: torch.Tensor, config: ExpertsConfig) -> tuple[torch.Tensor, torch.Tensor]:
        best, chosen = scores.float().topk(config.per_token, dim=-1)
        return best.softmax(dim=-1), chosen

    monkeypatch.setattr(moe, "route", route)


@caught_by(f"{NUMBERS}[qwen3-moe]")
def another_expert_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    def mixture(x: torch.Tensor, scores: torch.Tensor, *rest: Any, real: Any = decoder.mixture) -> Any:
        return real(x, scores.roll(1, dims=-1), *rest)

    monkeypatch.setattr(decoder, "mixture", mixture)


@caught_by(f"{NUMBERS}[mixtral]")
def what_experts_say_is_handed_to_other_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    def route(*args: Any, real: Any = moe.route) -> Any:
        weights, chosen = real(*args)
        return weights.roll(1, dims=0), chosen

    monkeypatch.setattr(moe, "route", route)


@caught_by(f"{NUMBERS}[mixtral]")
def gate_and_up_are_taken_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    names = families.MIXTRAL.experts
    swapped = replace(families.MIXTRAL, experts=replace(names, gate=names.up, up=names.gate))
    monkeypatch.setitem(families.FAMILIES, "MixtralForCausalLM", swapped)


@caught_by("test_moe.py::test_a_row_is_the_same_in_any_company")
def rows_are_added_up_in_the_order_of_experts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by weight: here with a place in the order that depends on the step."""

    def route(*args: Any, real: Any = moe.route) -> Any:
        weights, chosen = real(*args)
        return (weights, chosen) if len(chosen) % 2 else (weights.flip(-1), chosen.flip(-1))

    monkeypatch.setattr(moe, "route", route)
