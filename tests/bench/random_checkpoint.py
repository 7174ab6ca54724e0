"""A checkpoint of a real model's shape with random weights: `python -m tests.bench.random_checkpoint DIR`.

Needs only torch, safetensors and tokenizers. The default is the shape of Qwen3-0.6B: 1.2 GB in bfloat16.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from engine.models.config import ModelConfig
from engine.models.parameters import decoder_parameters

SHAPES: dict[str, dict[str, Any]] = {
    "0.6b": {
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
    },
    "0.5b": {
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 32768,
        "tie_word_embeddings": True,
    },
    "8b": {
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "tie_word_embeddings": False,
    },
    "14b": {
        "hidden_size": 5120,
        "intermediate_size": 17408,
        "num_hidden_layers": 40,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "tie_word_embeddings": False,
    },
    "60m": {
        "hidden_size": 384,
        "intermediate_size": 1536,
        "num_hidden_layers": 12,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "vocab_size": 65536,
        "tie_word_embeddings": True,
    },
}
_TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"


def write_checkpoint(
    directory: Path, shape: str = "0.6b", *, seed: int = 0, shard_bytes: int = 1 << 30, **overrides: Any
) -> Path:
    """Write the checkpoint; returns its directory. ``overrides`` go into config.json."""
    config = write_small_files(directory, shape, **overrides)
    shards = list(_shards(ModelConfig.parse(config), seed, shard_bytes))
    weight_map: dict[str, str] = {}
    total = sum(tensor.nbytes for tensors in shards for tensor in tensors.values())
    for number, tensors in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        save_file(tensors, directory / name, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(tensors, name))
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return directory


def write_small_files(directory: Path, shape: str, **overrides: Any) -> dict[str, Any]:
    """All but the weights, and their index; what is in config.json."""
    directory.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0,
        "dtype": "bfloat16",
        "eos_token_id": 0,
        **SHAPES[shape],
        **overrides,
    }
    (directory / "config.json").write_text(json.dumps(config, indent=1))
    _write_tokenizer(directory, config["vocab_size"])
    return config


def _shards(config: ModelConfig, seed: int, shard_bytes: int) -> Iterator[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    shard: dict[str, torch.Tensor] = {}
    for parameter in decoder_parameters(config):
        for name, dims in parameter.sources:
            # Norms around one, matrices small: activations stay finite through many layers.
            values = torch.randn(dims, generator=generator) * 0.03 + (1.0 if len(dims) == 1 else 0.0)
            shard[name] = values.to(torch.bfloat16)
        if sum(tensor.nbytes for tensor in shard.values()) >= shard_bytes:
            yield shard
            shard = {}
    if shard:
        yield shard


def _write_tokenizer(directory: Path, size: int) -> None:
    """Encodes byte by byte, and knows a word for every other id, so that any token shows in the text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = ["<|end|>", *alphabet, *(f"Ġw{index}" for index in range(size))][:size]
    tokenizer = Tokenizer(models.BPE(vocab={name: index for index, name in enumerate(names)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|end|>"])
    tokenizer.save(str(directory / "tokenizer.json"), pretty=False)
    settings = {"eos_token": "<|end|>", "chat_template": _TEMPLATE}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="0.6b")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(write_checkpoint(arguments.directory, arguments.shape, seed=arguments.seed))


if __name__ == "__main__":
    main()
