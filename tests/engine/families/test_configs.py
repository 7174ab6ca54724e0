"""config.json means what transformers takes it for, in either dialect, whatever it leaves out."""

from __future__ import annotations

from typing import Any

import pytest
from huggingface_hub.errors import StrictDataclassClassValidationError
from transformers import AutoConfig

from engine.models.config import ModelConfig
from engine.models.families import FAMILIES
from engine.types import CheckpointError
from tests.engine.checkpoints import SHAPE
from tests.engine.families.dialects import old_dialect
from tests.engine.families.shapes import LINEAR, SHAPES

ARCHITECTURES = {family.name: architecture for architecture, family in FAMILIES.items()}
NAMES = {"model_type", "architectures"}
NEEDED = {
    "head_dim",
    "hidden_size",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "sliding_window",
    "use_sliding_window",
}
"""Without one of these, what is left may make no model."""


def reference(family: str, config: dict[str, Any]) -> dict[str, Any]:
    """All of a config as transformers understands it, in its own dialect of today."""
    given = {name: value for name, value in config.items() if name not in NAMES}
    whole: dict[str, Any] = AutoConfig.for_model(family, **given).to_dict()
    return {**whole, "architectures": [ARCHITECTURES[family]]}


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_an_empty_config_means_the_familys_defaults(family: str) -> None:
    empty = {"architectures": [ARCHITECTURES[family]]}
    assert ModelConfig.parse(empty) == ModelConfig.parse(reference(family, {}))


@pytest.mark.parametrize("name", SHAPES)
def test_whatever_is_left_out_means_what_the_reference_takes(name: str) -> None:
    family, overrides = SHAPES[name]
    whole = reference(family, {**SHAPE, "vocab_size": 300, "dtype": "bfloat16", **overrides})
    configs = [whole, old_dialect(whole)]
    if family != "gemma3_text":  # where the reference overlooks the oldest word
        configs.append(old_dialect(whole, type_key="type"))
    for config in configs:
        for missing in [None, *(config.keys() - NAMES)]:
            less = {key: value for key, value in config.items() if key != missing}
            try:
                meant = ModelConfig.parse(reference(family, less))
            except (StrictDataclassClassValidationError, CheckpointError, IndexError):
                assert missing in NEEDED
            else:
                assert ModelConfig.parse(less) == meant, missing


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("type_key", ["rope_type", "type"])
def test_the_old_dialect_means_the_same(name: str, type_key: str) -> None:
    family, overrides = SHAPES[name]
    whole = reference(family, {**SHAPE, "vocab_size": 300, "dtype": "bfloat16", **overrides})
    if family == "gemma3_text" and "layer_types" in overrides:
        whole["layer_types"] = ["sliding_attention", "full_attention", "sliding_attention"]
    assert ModelConfig.parse(old_dialect(whole, type_key=type_key)) == ModelConfig.parse(whole)


@pytest.mark.parametrize(
    ("family", "rope", "length"),
    [
        ("llama", {"rope_type": "default"}, 512),
        ("llama", {"rope_type": "linear", "factor": 2.5}, 1280),
        ("llama", {"rope_type": "dynamic", "factor": 3}, 1536),
        ("llama", {"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 200}, 800),
        ("llama", {"rope_type": "yarn", "factor": 2, "original_max_position_embeddings": 128}, 512),
        ("gemma3_text", {"full_attention": {"rope_type": "linear", "factor": 8}}, 512),
    ],
)
def test_how_long_a_text_may_be(family: str, rope: dict[str, Any], length: int) -> None:
    """What a scaling stretches, unless config.json gives the stretched length already."""
    config = {"architectures": [ARCHITECTURES[family]], **SHAPE, "rope_parameters": rope}
    assert ModelConfig.parse(config).max_position == length


@pytest.mark.parametrize(
    ("family", "overlooked"),
    [
        ("gemma2", {"sliding_window_pattern": 3}),
        ("gemma3_text", {"attn_logit_softcapping": 3.0}),
        ("gemma3_text", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 777.0}}),
        ("gemma3_text", {"rope_parameters": {"full_attention": {"partial_rotary_factor": 0.5}}}),
        ("llama", {"rope_parameters": {"partial_rotary_factor": 0.5}}),
        ("qwen3", {"partial_rotary_factor": 0.5}),
        ("llama", {"partial_rotary_factor": None}),
        ("phi3", {"partial_rotary_factor": None}),
    ],
)
def test_what_the_reference_overlooks_changes_nothing(family: str, overlooked: dict[str, Any]) -> None:
    plain = {"architectures": [ARCHITECTURES[family]], **SHAPE, "sliding_window": 20}
    assert ModelConfig.parse({**plain, **overlooked}) == ModelConfig.parse(plain)


REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "windows of which size": ("gemma2", {"sliding_window": None}),
    "a window of nothing": ("mistral", {"sliding_window": 0}),
    "windows in a list only": ("qwen2", {"layer_types": ["sliding_attention"] * 3}),
    "a list against the window": ("mistral", {"layer_types": ["full_attention"] * 3}),
    "a list of other layers": ("qwen3", {"layer_types": ["linear_attention"] * 3}),
    "a list of fewer layers": ("gemma3_text", {"layer_types": ["full_attention"]}),
    "a rope for no kind of layer": (
        "gemma3_text",
        {"rope_parameters": {"rope_type": "default"}, "rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    ),
    "a rope by kind of layer": ("gemma2", {"rope_parameters": {"full_attention": {}}}),
    "a part of a head, scaled": ("qwen2", {"partial_rotary_factor": 0.5, "rope_scaling": LINEAR}),
    "more than a head": ("phi3", {"partial_rotary_factor": 1.5}),
    "nothing of a head": ("phi3", {"partial_rotary_factor": 0}),
    "attention to both sides": ("gemma3_text", {"use_bidirectional_attention": True}),
    "another activation": ("gemma2", {"hidden_activation": "relu2"}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_give_wrong_numbers_is_refused(name: str) -> None:
    family, overrides = REFUSED[name]
    good = {"architectures": [ARCHITECTURES[family]], **SHAPE, "sliding_window": 20}
    assert ModelConfig.parse(good)
    with pytest.raises(CheckpointError) as caught:
        ModelConfig.parse({**good, **overrides})
    assert "\n" not in caught.value.reason
