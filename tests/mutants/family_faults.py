"""Planted faults in the numbers of families, and the test that must catch each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from engine.attention import AttentionSpec, plan
from engine.attention import cpu as attention
from engine.models import config, decoder, families, rope
from engine.models.config import ModelConfig
from engine.models.family import Norms
from tests.mutants.engine_faults import FAULTS, caught_by, change_result

__all__ = ["FAULTS"]

NUMBERS = "families/test_numbers.py::test_float32"


def misread(monkeypatch: pytest.MonkeyPatch, change: Callable[[ModelConfig], ModelConfig]) -> None:
    """config.json is taken for something else."""
    change_result(monkeypatch, config, "_parse", change)


def mistake_family(monkeypatch: pytest.MonkeyPatch, architecture: str, **switches: Any) -> None:
    changed = replace(families.FAMILIES[architecture], **switches)
    monkeypatch.setitem(families.FAMILIES, architecture, changed)


def mistake_spec(monkeypatch: pytest.MonkeyPatch, change: Callable[[AttentionSpec], AttentionSpec]) -> None:
    monkeypatch.setattr(decoder, "AttentionSpec", lambda *values: change(AttentionSpec(*values)))


# Attention


@caught_by(f"{NUMBERS}[llama-gelu]")
def rows_look_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    change_result(monkeypatch, attention, "_mask", torch.zeros_like)


@caught_by("test_attention.py::test_attention_is_the_formula[(32, 4, 2)-plain-neighbours]")
def all_segments_weigh_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def level(*args: Any) -> Any:
        values, sums = flash(*args)
        return values, torch.zeros_like(sums)

    flash = attention._mix
    monkeypatch.setattr(attention, "_mix", level)


@caught_by("test_attention.py::test_a_row_is_told_the_same_to_the_bit[(32, 4, 2)-plain-torch.bfloat16]")
def what_is_behind_a_prompt_is_read_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    change_result(monkeypatch, plan, "make_plan", lambda made: replace(made, blank=None))
    monkeypatch.setattr("tests.engine.test_attention.make_plan", plan.make_plan)


@caught_by(f"{NUMBERS}[mistral]")
def a_window_is_one_too_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    mistake_spec(monkeypatch, lambda spec: replace(spec, window=spec.window and spec.window + 1))


@caught_by(f"{NUMBERS}[phi3]")
def a_window_is_one_too_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    mistake_spec(monkeypatch, lambda spec: replace(spec, window=spec.window and spec.window - 1))


@caught_by(f"{NUMBERS}[qwen3]")
def the_layers_that_slide_are_one_off(monkeypatch: pytest.MonkeyPatch) -> None:
    misread(monkeypatch, lambda c: replace(c, layers=(c.layers[-1], *c.layers[:-1])))


@caught_by(f"{NUMBERS}[gemma2]")
def the_scale_is_that_of_the_head_size(monkeypatch: pytest.MonkeyPatch) -> None:
    misread(monkeypatch, lambda c: replace(c, attention_scale=c.head_dim**-0.5))


@caught_by(f"{NUMBERS}[gemma2]")
def scores_are_not_capped(monkeypatch: pytest.MonkeyPatch) -> None:
    mistake_spec(monkeypatch, lambda spec: replace(spec, softcap=None))


@caught_by(f"{NUMBERS}[gemma2]")
def logits_are_not_capped(monkeypatch: pytest.MonkeyPatch) -> None:
    misread(monkeypatch, lambda c: replace(c, logits_softcap=None))


# Rope


@caught_by(f"{NUMBERS}[llama-llama3]")
def a_rope_scaling_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(rope._SCALINGS, "llama3", rope._plain)


@caught_by(f"{NUMBERS}[llama-yarn-scales]")
def yarn_always_rounds_its_borders(monkeypatch: pytest.MonkeyPatch) -> None:
    real = rope._yarn

    def rounded(given: Any, exponents: torch.Tensor) -> Any:
        return real(replace(given, parameters={**given.parameters, "truncate": True}), exponents)

    monkeypatch.setitem(rope._SCALINGS, "yarn", rounded)


@caught_by(f"{NUMBERS}[llama-yarn]")
def yarn_has_no_temperature(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rope, "_yarn_scale", lambda given: 1.0)


def forget_lengths(monkeypatch: pytest.MonkeyPatch, *, of_prompts: bool) -> None:
    """Rotations see tokens as if they were prompts by themselves, or every token as one of the prompt."""
    real = rope.Rope._of

    def of(self: Any, positions: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return real(self, positions, positions + 1) if of_prompts else real(self, lengths - 1, lengths)

    monkeypatch.setattr(rope.Rope, "_of", of)


@caught_by(f"{NUMBERS}[phi3-longrope]")
def long_prompts_begin_with_short_factors(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_lengths(monkeypatch, of_prompts=True)


@caught_by(f"{NUMBERS}[phi3-longrope]")
def answers_keep_the_short_factors_of_their_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_lengths(monkeypatch, of_prompts=False)


@caught_by("test_parity.py::test_prompts_that_begin_alike_on_both_sides_of_longropes_border")
def long_prompts_use_the_keys_of_short_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelConfig, "prompt_variant", lambda self, length: 0)


@caught_by(f"{NUMBERS}[llama-dynamic]")
def the_dynamic_base_is_that_of_each_position(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_lengths(monkeypatch, of_prompts=True)


@caught_by("families/test_numbers.py::test_what_the_reference_overlooks_we_overlook[a part of qwen3]")
def a_part_of_a_head_is_a_part_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    mistake_family(monkeypatch, "Qwen3ForCausalLM", partial_rope=True)


@caught_by(f"{NUMBERS}[phi3-odd-part]")
def an_odd_part_of_a_head_is_taken_for_an_even_one(monkeypatch: pytest.MonkeyPatch) -> None:
    real = rope.Rope.__init__

    def rounded(self: Any, given: Any, device: torch.device) -> None:
        real(self, replace(given, dim=given.dim + given.dim % 2), device)

    monkeypatch.setattr(rope.Rope, "__init__", rounded)


@caught_by(f"{NUMBERS}[smollm3]")
def every_layer_is_rotated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "rotated_layers", lambda known: [True] * known["num_hidden_layers"])


@caught_by(f"{NUMBERS}[gemma3]")
def local_layers_have_the_rope_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    misread(monkeypatch, lambda c: replace(c, ropes=dict.fromkeys(c.ropes, c.ropes["full_attention"])))


# Norms and scales


@caught_by(f"{NUMBERS}[gemma3]")
def a_norm_forgets_its_one(monkeypatch: pytest.MonkeyPatch) -> None:
    mistake_family(monkeypatch, "Gemma3ForCausalLM", norm_weight="wide")


@caught_by(f"{NUMBERS}[olmo2]")
def norms_stand_before_instead_of_after(monkeypatch: pytest.MonkeyPatch) -> None:
    norms = Norms(before_attention="post_attention_layernorm", before_mlp="post_feedforward_layernorm")
    mistake_family(monkeypatch, "Olmo2ForCausalLM", norms=norms)


@caught_by(f"{NUMBERS}[olmo2]")
def queries_and_keys_are_not_normed(monkeypatch: pytest.MonkeyPatch) -> None:
    mistake_family(monkeypatch, "Olmo2ForCausalLM", qk_norm=None)


@caught_by(f"{NUMBERS}[mistral]")
def epsilon_is_always_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    misread(monkeypatch, lambda c: replace(c, norm_eps=1e-6))


@caught_by(f"{NUMBERS}[gemma2]")
def embeddings_are_not_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    misread(monkeypatch, lambda c: replace(c, embedding_scale=1.0))


@caught_by(f"{NUMBERS}[granite]")
def residuals_are_not_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    misread(monkeypatch, lambda c: replace(c, residual_scale=1.0))


@caught_by(f"{NUMBERS}[llama-gelu]")
def every_activation_is_silu(monkeypatch: pytest.MonkeyPatch) -> None:
    misread(monkeypatch, lambda c: replace(c, activation="silu"))


@caught_by("families/test_configs.py::test_an_empty_config_means_the_familys_defaults[smollm3]")
def embeddings_are_tied_only_when_config_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = {**families.SMOLLM3.defaults, "tie_word_embeddings": False}
    mistake_family(monkeypatch, "SmolLM3ForCausalLM", defaults=defaults)


@caught_by("families/test_places.py::test_the_text_model_of_one_that_sees[mistral3-True-as saved]")
def a_wrapper_says_nothing_of_its_text_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "_text_config", lambda whole: whole["text_config"])
