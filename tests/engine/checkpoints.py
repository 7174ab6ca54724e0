"""Tiny checkpoints made by transformers itself, with settings that bite."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_SPECIAL = ["<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
_TEXT = ["The dormouse sleeps all winter and wakes in spring; naïve café 日本語 🐭 1 2 3." * 3]

SHAPE: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": 0,
}

_FAMILY_SHAPES: dict[str, dict[str, Any]] = {
    "qwen3": {"head_dim": 20},
    "gemma2": {"head_dim": 20},
    "gemma3_text": {"head_dim": 20},
}
"""Where a family's own head size is far from tiny."""


@functools.cache
def make_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=_SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXT, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")
    fast.chat_template = CHAT_TEMPLATE
    return fast


def randomize(model: Any) -> Any:
    """Weights large enough that logits differ clearly, with norms and biases that do something."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(1.0 if parameter.dim() == 1 else 0.0, 0.15)
    return model


def make_checkpoint(
    directory: Path,
    family: str = "llama",
    dtype: torch.dtype = torch.float32,
    *,
    seed: int = 0,
    max_shard_size: str = "5GB",
    **overrides: Any,
) -> Path:
    """A random model of a family, by its ``model_type``."""
    tokenizer = make_tokenizer()
    shape = {**SHAPE, "vocab_size": len(tokenizer), **overrides}
    torch.manual_seed(seed)
    config = AutoConfig.for_model(family, **_FAMILY_SHAPES.get(family, {}) | shape)
    model = randomize(AutoModelForCausalLM.from_config(config))
    model.generation_config.eos_token_id = 0
    model.to(dtype).save_pretrained(directory, max_shard_size=max_shard_size)
    tokenizer.save_pretrained(directory)
    return directory
