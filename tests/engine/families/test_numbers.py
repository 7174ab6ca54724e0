"""Our logits are those of transformers, for every family: in chunks, through the cache, in batches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.checkpoints import make_checkpoint
from tests.engine.families.dialects import old_dialect
from tests.engine.families.forward import Text, forward
from tests.engine.families.shapes import SHAPES
from tests.engine.harness import prompt
from tests.engine.reference import reference_logits

FLOAT32_LIMIT = 1e-4
CHUNK = 32
TEXTS = [
    Text(prompt(length, seed=length), prompt_length)
    for length, prompt_length in ((100, 94), (52, 44), (17, 12), (9, 1))
]
"""Prompts within and beyond the windows and original lengths of the shapes, and one that grows past them."""

OLD = [
    "llama-yarn",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3-defaults",
    "phi3-longrope",
    "smollm3-window",
]


@pytest.mark.parametrize("name", SHAPES)
def test_float32(tmp_path: Path, name: str) -> None:
    family, overrides = SHAPES[name]
    directory = make_checkpoint(tmp_path, family, **overrides)
    for text, ours in zip(TEXTS, forward(directory, TEXTS, CHUNK), strict=True):
        how = (torch.float32, "eager")
        expected = reference_logits(directory, text.token_ids, *how, prompt_length=text.prompt_length)
        difference = (ours - expected).abs().max().item()
        assert difference < FLOAT32_LIMIT, f"logits differ by {difference:.2e}"
        assert expected.std() > 0.1, "a reference this flat would hide any fault"


@pytest.mark.parametrize("name", SHAPES)
def test_bfloat16_is_as_near_as_the_reference_is_to_itself(tmp_path: Path, name: str) -> None:
    family, overrides = SHAPES[name]
    directory = make_checkpoint(tmp_path, family, torch.bfloat16, **overrides)
    text = TEXTS[0]
    ours = forward(directory, [text], CHUNK)[0]
    length = text.prompt_length if name == "llama-dynamic" else None
    # The reference has one attention only that caps scores: there it is compared to itself in float32.
    other_way = (torch.float32, "eager") if family == "gemma2" else (torch.bfloat16, "sdpa")
    eager, other = (
        reference_logits(directory, text.token_ids, *how, prompt_length=length)
        for how in ((torch.bfloat16, "eager"), other_way)
    )
    own, distance = (eager - other).abs(), (ours - other).abs()
    assert distance.mean() <= 1.5 * own.mean()
    assert distance.max() <= 3 * own.max()


PART = {"partial_rotary_factor": 0.5}
WHOLE_HEADS = [
    "llama-gelu",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3-caps",
    "olmo2",
    "granite",
    "smollm3",
    "mixtral",
    "qwen2-moe",
    "qwen3-moe",
]
OVERLOOKED: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma2's pattern": ("gemma2", {"layer_types": None, "sliding_window_pattern": 3}),
    "gemma3's flat rope": ("gemma3-defaults", {"rope_parameters": {"rope_type": "linear", "factor": 4.0}}),
    "a part in gemma3's ropes": (
        "gemma3-caps",
        {"rope_parameters": {"full_attention": PART, "sliding_attention": PART}},
    ),
    "a part in granite's rope": ("granite", {"rope_parameters": {"rope_type": "default", **PART}}),
    **{f"a part of {name}": (name, PART) for name in WHOLE_HEADS},
}


@pytest.mark.parametrize("name", OVERLOOKED)
def test_what_the_reference_overlooks_we_overlook(tmp_path: Path, name: str) -> None:
    shape, edits = OVERLOOKED[name]
    directory = make_checkpoint(tmp_path, SHAPES[shape][0], **SHAPES[shape][1])
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | edits))
    ours = forward(directory, [TEXTS[0]], CHUNK)[0]
    expected = reference_logits(directory, TEXTS[0].token_ids, torch.float32, "eager")
    assert (ours - expected).abs().max() < FLOAT32_LIMIT


@pytest.mark.parametrize("name", OLD)
def test_the_old_dialect_gives_the_references_numbers(tmp_path: Path, name: str) -> None:
    family, overrides = SHAPES[name]
    directory = make_checkpoint(tmp_path, family, **overrides)
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(old_dialect(config)))
    ours = forward(directory, [TEXTS[0]], CHUNK)[0]
    expected = reference_logits(directory, TEXTS[0].token_ids, torch.float32, "eager")
    assert (ours - expected).abs().max() < FLOAT32_LIMIT
