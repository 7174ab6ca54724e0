"""config.json of a BERT-style encoder, and the families of them: one short entry each.

No torch in here: an estimate needs none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.sentence import SentenceConfig
from engine.types import CheckpointError


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderFamily:
    """What its files call the tensors, and where it differs from BERT."""

    layer: str = "encoder.layer"
    names: tuple[str, ...] = (
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
        "attention.output.LayerNorm",
        "intermediate.dense",
        "output.dense",
        "output.LayerNorm",
    )
    """Of a layer: query, key, value, attention's output and norm, the MLP's two matrices and norm."""
    token_types: bool = True
    positions_after_padding: bool = False
    """The first position is one past the padding token's id."""
    relative_positions: bool = False
    """Attention has a bias by distance (Raffel et al., 2020)."""


_BERT = EncoderFamily()
_ROBERTA = EncoderFamily(positions_after_padding=True)
_DISTILBERT = EncoderFamily(
    layer="transformer.layer",
    names=(
        "attention.q_lin",
        "attention.k_lin",
        "attention.v_lin",
        "attention.out_lin",
        "sa_layer_norm",
        "ffn.lin1",
        "ffn.lin2",
        "output_layer_norm",
    ),
    token_types=False,
)
_MPNET = EncoderFamily(
    names=(
        "attention.attn.q",
        "attention.attn.k",
        "attention.attn.v",
        "attention.attn.o",
        "attention.LayerNorm",
        "intermediate.dense",
        "output.dense",
        "output.LayerNorm",
    ),
    token_types=False,
    positions_after_padding=True,
    relative_positions=True,
)

ENCODERS = {
    f"{name}{head}": family
    for name, family in {
        "Bert": _BERT,
        "Roberta": _ROBERTA,
        "XLMRoberta": _ROBERTA,
        "Camembert": _ROBERTA,
        "DistilBert": _DISTILBERT,
        "MPNet": _MPNET,
    }.items()
    for head in ("Model", "ForMaskedLM")
}
"""By architecture. The masked language models' heads are not read."""

ACTIVATIONS = ("silu", "swish", "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "relu")

_OTHER_NAMES = {
    "hidden_size": "dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "intermediate_size": "hidden_dim",
    "hidden_act": "activation",
}
"""DistilBERT's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderConfig:
    """An encoder's shape."""

    architecture: str
    family: EncoderFamily
    dtype: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    norm_eps: float
    activation: str
    token_types: int
    """Rows of their table; only the first is used."""
    relative_buckets: int
    positions: int
    """Rows of their table."""
    first_position: int
    max_position: int
    """Tokens of an input, at most."""
    sentence: SentenceConfig | None = None

    kv_elements_per_token = 0

    @classmethod
    def parse(cls, config: Mapping[str, Any]) -> EncoderConfig:
        """For an architecture of ``ENCODERS``. Raises CheckpointError."""
        given = {name: config.get(name, config.get(other)) for name, other in _OTHER_NAMES.items()}
        given = {**config, **{name: value for name, value in given.items() if value is not None}}
        architecture = next(name for name in config["architectures"] if name in ENCODERS)
        family = ENCODERS[architecture]
        try:
            first = int(given.get("pad_token_id", 1)) + 1 if family.positions_after_padding else 0
            positions = int(given.get("max_position_embeddings", 512))
            parsed = cls(
                architecture=architecture,
                family=family,
                dtype=str(given.get("dtype") or given.get("torch_dtype") or "float32"),
                vocab_size=int(given["vocab_size"]),
                hidden_size=int(given["hidden_size"]),
                intermediate_size=int(given["intermediate_size"]),
                num_layers=int(given["num_hidden_layers"]),
                num_heads=int(given["num_attention_heads"]),
                norm_eps=float(given.get("layer_norm_eps", 1e-12)),
                activation=str(given.get("hidden_act", "gelu")),
                token_types=int(given.get("type_vocab_size", 2)),
                relative_buckets=int(given.get("relative_attention_num_buckets", 32)),
                positions=positions,
                first_position=first,
                max_position=positions - first,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"config.json: {error!r}", reason="config.json is incomplete or malformed"
            ) from error
        _refuse_unserved(given, parsed)
        return parsed


def _refuse_unserved(given: Mapping[str, Any], config: EncoderConfig) -> None:
    """What would silently give wrong numbers is an error."""
    sizes = (config.vocab_size, config.hidden_size, config.num_layers, config.num_heads, config.max_position)
    refused = {
        "quantization_config": given.get("quantization_config"),
        "is_decoder": given.get("is_decoder"),
        "position_embedding_type": given.get("position_embedding_type", "absolute") != "absolute",
        f"hidden_act {config.activation!r}": config.activation not in ACTIVATIONS,
        "a size below one": min(sizes) < 1,
        f"{config.num_heads} heads in {config.hidden_size}": config.hidden_size % max(1, config.num_heads),
    }
    for what, found in refused.items():
        if found:
            message = f"config.json: {what} is not supported"
            raise CheckpointError(message, reason=message)
