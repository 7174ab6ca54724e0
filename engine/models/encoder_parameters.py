"""An encoder's parameters, and the checkpoint tensors that each is stacked from.

No torch in here: an estimate needs none.
"""

from __future__ import annotations

import re
from dataclasses import replace

from engine.checkpoint import Shard
from engine.models.encoder_config import EncoderConfig
from engine.parameter import Parameter

_PREFIX = re.compile(r"^(bert|roberta|distilbert|mpnet)\.")
_OLD_ENDINGS = {"gamma": "weight", "beta": "bias"}


def canonical(shard: Shard) -> Shard:
    """The shard with its tensors named as in a bare model: without the model's prefix, norms as of today."""

    def rename(name: str) -> str:
        stem, _, ending = _PREFIX.sub("", name).rpartition(".")
        return f"{stem}.{_OLD_ENDINGS.get(ending, ending)}"

    return replace(shard, tensors={rename(name): tensor for name, tensor in shard.tensors.items()})


def encoder_parameters(config: EncoderConfig) -> list[Parameter]:
    """Every parameter and the checkpoint tensors that it is stacked from, in the order of use."""
    hidden, inner, family = config.hidden_size, config.intermediate_size, config.family
    tables = [("word", "embeddings.word_embeddings", (config.vocab_size, hidden))]
    if family.token_types:
        tables.append(("types", "embeddings.token_type_embeddings", (config.token_types, hidden)))
    tables.append(("position", "embeddings.position_embeddings", (config.positions, hidden)))
    if family.relative_positions:
        shape = (config.relative_buckets, config.num_heads)
        tables.append(("relative", "encoder.relative_attention_bias", shape))
    found = [Parameter(name, ((f"{source}.weight", shape),)) for name, source, shape in tables]
    found += _affine("norm", ("embeddings.LayerNorm",), (hidden,))
    for index in range(config.num_layers):
        query, key, value, out, attention_norm, up, down, norm = (
            f"{family.layer}.{index}.{name}" for name in family.names
        )
        found += _affine(f"{index}.qkv", (query, key, value), (hidden, hidden))
        found += _affine(f"{index}.o", (out,), (hidden, hidden))
        found += _affine(f"{index}.attention_norm", (attention_norm,), (hidden,))
        found += _affine(f"{index}.up", (up,), (inner, hidden))
        found += _affine(f"{index}.down", (down,), (hidden, inner))
        found += _affine(f"{index}.norm", (norm,), (hidden,))
    return found


def _affine(name: str, sources: tuple[str, ...], shape: tuple[int, ...]) -> list[Parameter]:
    """Weight and bias."""
    return [
        Parameter(f"{name}.weight", tuple((f"{source}.weight", shape) for source in sources)),
        Parameter(f"{name}.bias", tuple((f"{source}.bias", shape[:1]) for source in sources)),
    ]
