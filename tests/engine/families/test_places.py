"""A decoder is found in the files of a model that sees, and in those of one without a head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText

import engine
from engine.types import CheckpointError
from tests.engine.checkpoints import SHAPE, make_checkpoint, randomize
from tests.engine.families.forward import Text, forward
from tests.engine.harness import edit_json, prompt

WEIGHTS = "model.safetensors"
TEXT = Text(prompt(60), 50)
WRAPPERS = {
    "gemma3": ("gemma3_text", "siglip_vision_model"),
    "mistral3": ("mistral", "pixtral"),
    "llava": ("llama", "clip_vision_model"),
    "llava-qwen2": ("qwen2", "clip_vision_model"),
}
PLACES = {
    "as saved": {},
    "inside": {"language_model.model.": "model.language_model.", "language_model.lm_head.": "lm_head."},
}
EYES = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}


def make_wrapper(directory: Path, name: str, **around: Any) -> Any:
    text, eyes = WRAPPERS[name]
    shape = {**SHAPE, "vocab_size": 300, "head_dim": 20, "sliding_window": 30, "model_type": text}
    config = AutoConfig.for_model(
        name.partition("-")[0], text_config=shape, vision_config={**EYES, "model_type": eyes}, **around
    )
    model = randomize(AutoModelForImageTextToText.from_config(config))
    model.save_pretrained(directory)
    return model


@torch.inference_mode()
def expected(model: Any) -> torch.Tensor:
    logits: torch.Tensor = model(torch.tensor([TEXT.token_ids])).logits[0]
    return logits


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", WRAPPERS)
def test_the_text_model_of_one_that_sees(tmp_path: Path, name: str, tied: bool, place: str) -> None:
    model = make_wrapper(tmp_path, name, tie_word_embeddings=tied)
    tensors = load_file(tmp_path / WEIGHTS)
    for theirs, moved in PLACES[place].items():
        tensors = {key.replace(theirs, moved): tensor for key, tensor in tensors.items()}
    save_file(tensors, tmp_path / WEIGHTS)
    ours = forward(tmp_path, [TEXT], 20)[0]
    assert (ours - expected(model)).abs().max() < 1e-4
    size = sum(p.numel() for n, p in model.named_parameters() if "language_model" in n or "lm_head" in n)
    estimate = engine.estimate(str(tmp_path))
    assert estimate
    assert estimate.weights_bytes == size * 4


def test_a_text_model_of_an_unknown_type_is_refused(tmp_path: Path) -> None:
    make_wrapper(tmp_path, "llava")
    edit_json(tmp_path / "config.json", lambda config: config["text_config"].update(model_type="opt"))
    with pytest.raises(CheckpointError, match="opt"):
        engine.estimate(str(tmp_path))


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3", "gemma3_text", "phi3"])
def test_a_model_without_a_head_gives_hidden_states(tmp_path: Path, family: str) -> None:
    whole = make_checkpoint(tmp_path / "whole", family)
    model = AutoModel.from_pretrained(whole)
    model.save_pretrained(tmp_path / "body")
    assert not any("model." in name for name in load_file(tmp_path / "body" / WEIGHTS))
    with torch.inference_mode():
        states = model(torch.tensor([TEXT.token_ids])).last_hidden_state[0]
    for directory in (whole, tmp_path / "body"):
        assert (forward(directory, [TEXT], 20, hidden=True)[0] - states).abs().max() < 1e-4
