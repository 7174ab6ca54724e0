"""config.json, read into one shape for all families of decoders and both dialects.

transformers 5 writes ``rope_parameters``, ``dtype`` and ``layer_types``; most files in the world have
``rope_theta``, ``rope_scaling``, ``torch_dtype`` and rules for which layers slide. What a file leaves out is
what transformers' class for that family takes. No torch in here: an estimate needs none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from engine.models.encoder_config import ACTIVATIONS, ENCODERS
from engine.models.experts_config import ExpertsConfig, sparse_layers
from engine.models.families import FAMILIES, HEADLESS, WRAPPERS
from engine.models.family import Family
from engine.models.layer_types import FULL, SLIDING, rotated_layers
from engine.models.rope_config import RopeConfig, parse_ropes
from engine.sentence import SentenceConfig
from engine.types import CheckpointError


@dataclass(frozen=True, slots=True)
class LayerConfig:
    rope: str | None
    """Which of ``ModelConfig.ropes``; None: no rotation."""
    window: int | None
    """How many positions a token sees, itself included; None: all before it."""
    sparse: bool
    """Experts in place of one MLP."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """A decoder's shape."""

    architecture: str
    family: Family
    has_head: bool
    dtype: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    layers: tuple[LayerConfig, ...]
    experts: ExpertsConfig | None
    ropes: Mapping[str, RopeConfig]
    norm_eps: float
    activation: str
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool
    tied_embeddings: bool
    max_position: int
    attention_scale: float
    attention_softcap: float | None
    embedding_scale: float
    residual_scale: float
    logits_divisor: float
    logits_softcap: float | None
    sentence: SentenceConfig | None = None
    """Of a model that embeds."""

    @property
    def kv_elements_per_token(self) -> int:
        """Keys and values of all layers."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim

    @property
    def kv_shape(self) -> tuple[int, int, int]:
        """Layers, KV heads, head size."""
        return self.num_layers, self.num_kv_heads, self.head_dim

    @property
    def used_ropes(self) -> dict[str, RopeConfig]:
        """Those of its layers."""
        used = {layer.rope for layer in self.layers}
        return {kind: rope for kind, rope in self.ropes.items() if kind in used}

    @property
    def kept_bytes(self) -> int:
        """Of the buffers that its decoder holds beside weights and KV."""
        return sum(rope.table_bytes for rope in self.used_ropes.values())

    def prompt_variant(self, length: int) -> int:
        """Keys are the same for the same tokens only among prompts of one variant, see ``RopeConfig``."""
        return max(rope.prompt_variant(length) for rope in self.ropes.values())

    @classmethod
    def parse(cls, config: Mapping[str, Any]) -> ModelConfig:
        """Raises CheckpointError for an unknown architecture or a feature that is not served."""
        try:
            architecture, family = _family(config)
            if architecture in WRAPPERS:
                config = _text_config(config)
            _refuse_unserved(config, family)
            parsed = _parse(config, architecture, family)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            why = str(error) if type(error) is ValueError else repr(error)
            raise CheckpointError(
                f"config.json: {why}", reason=f"config.json is malformed or not supported: {why}"
            ) from error
        _refuse_impossible(parsed)
        return parsed


def _parse(config: Mapping[str, Any], architecture: str, family: Family) -> ModelConfig:
    known = {name: config.get(name, default) for name, default in family.defaults.items()}
    hidden, heads = int(known["hidden_size"]), int(known["num_attention_heads"])
    head_dim = int(known["head_dim"] or hidden // heads)
    ropes = parse_ropes(config, known, family, head_dim)
    longest = int(known["max_position_embeddings"])
    attention_bias = bool(known.get("attention_bias"))
    query_size = known.get("query_pre_attn_scalar", head_dim)
    return ModelConfig(
        architecture=architecture,
        family=family,
        has_head=architecture not in HEADLESS,
        dtype=str(config.get("dtype") or config.get("torch_dtype") or "float32"),
        vocab_size=int(known["vocab_size"]),
        hidden_size=hidden,
        intermediate_size=int(known["intermediate_size"]),
        num_layers=int(known["num_hidden_layers"]),
        num_heads=heads,
        num_kv_heads=int(known["num_key_value_heads"] or heads),
        head_dim=head_dim,
        layers=_layers(known, family),
        experts=ExpertsConfig.parse(known),
        ropes=ropes,
        norm_eps=float(known["rms_norm_eps"]),
        activation=_activation(known),
        qkv_bias=bool(known.get("qkv_bias", family.qkv_bias)) or attention_bias,
        output_bias=attention_bias,
        mlp_bias=bool(known.get("mlp_bias")),
        tied_embeddings=bool(known["tie_word_embeddings"]),
        # Gemma 3's is the stretched length already.
        max_position=max(longest, 0 if family.local_rope_theta else ropes[FULL].stretched_length),
        attention_scale=float(known.get("attention_multiplier", float(query_size) ** -0.5)),
        attention_softcap=_optional(known.get("attn_logit_softcapping")),
        embedding_scale=float(
            hidden**0.5 if family.scaled_embeddings else known.get("embedding_multiplier", 1.0)
        ),
        residual_scale=float(known.get("residual_multiplier", 1.0)),
        logits_divisor=float(known.get("logits_scaling", 1.0)),
        logits_softcap=_optional(known.get("final_logit_softcapping")),
    )


def _family(config: Mapping[str, Any]) -> tuple[str, Family]:
    known = FAMILIES | HEADLESS
    architectures = config.get("architectures") or []
    for architecture in architectures:
        if architecture in known:
            return architecture, known[architecture]
        if architecture in WRAPPERS:
            kind = config["text_config"].get("model_type", WRAPPERS[architecture].name)
            for family in FAMILIES.values():
                if family.name == kind:
                    return architecture, family
            raise ValueError(f"a text model of type {kind!r}")
    named = ", ".join(map(str, architectures)) or "none named"
    message = f"unknown architecture ({named}); known: {', '.join((*FAMILIES, *WRAPPERS, *ENCODERS))}"
    raise CheckpointError(message, reason=message)


def _text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """That of a wrapper's text model, with what stands around it for all its parts."""
    shared = ("dtype", "torch_dtype", "tie_word_embeddings", "quantization_config")
    around = {name: config[name] for name in shared if config.get(name) is not None}
    return {**config["text_config"], **around}


def _layers(known: Mapping[str, Any], family: Family) -> tuple[LayerConfig, ...]:
    kinds = family.layer_types(known)
    if len(kinds) != known["num_hidden_layers"] or not {FULL, SLIDING}.issuperset(kinds):
        raise ValueError(f"layer_types {kinds}")
    window = known.get("sliding_window")
    if SLIDING in kinds and (window is None or int(window) < 1):
        raise ValueError(f"layers that slide, with sliding_window {window}")
    return tuple(
        LayerConfig(kind if rotated else None, int(window) if window and kind == SLIDING else None, sparse)
        for kind, rotated, sparse in zip(kinds, rotated_layers(known), sparse_layers(known), strict=True)
    )


def _activation(known: Mapping[str, Any]) -> str:
    name = known.get("hidden_activation", known["hidden_act"])
    if name not in ACTIVATIONS:
        raise ValueError(f"activation {name!r} (known: {', '.join(ACTIVATIONS)})")
    return str(name)


def _optional(value: Any) -> float | None:
    return None if value is None else float(value)


def _refuse_unserved(config: Mapping[str, Any], family: Family) -> None:
    """A feature that would silently give wrong numbers is an error."""
    for feature in ("quantization_config", "use_bidirectional_attention", "alibi", "attention_sinks"):
        if config.get(feature):
            raise ValueError(feature)
    if config.get("is_causal") is False:
        raise ValueError("is_causal false")
    unknown = config.keys() - family.defaults.keys()
    if "use_sliding_window" in unknown and config["use_sliding_window"]:
        raise ValueError(f"use_sliding_window in a model of type {family.name}")
    if "layer_types" in unknown and {FULL} != {*(config["layer_types"] or [FULL])}:
        raise ValueError(f"layer_types in a model of type {family.name}")


def _refuse_impossible(config: ModelConfig) -> None:
    for field in fields(config):
        size = getattr(config, field.name)
        if type(size) is int and size < 1:
            _refuse(f"{field.name} {size}")
    if config.num_heads % config.num_kv_heads:
        _refuse(f"{config.num_heads} heads over {config.num_kv_heads} KV heads")
    if config.head_dim % 2:
        _refuse(f"an odd head_dim ({config.head_dim})")


def _refuse(feature: str) -> None:
    message = f"config.json: {feature} is not supported"
    raise CheckpointError(message, reason=message)
