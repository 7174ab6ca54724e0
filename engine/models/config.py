"""config.json, read into one shape for all families and both dialects.

transformers 5 writes ``rope_parameters``, ``dtype`` and ``layer_types``; most files in the world have
``rope_theta``, ``rope_scaling`` and ``torch_dtype``. No torch in here: an estimate needs none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from engine.models.families import FAMILIES, Family
from engine.types import CheckpointError

ROPE_PARAMETERS: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}
"""The rope scalings that are served, and what each must give."""


@dataclass(frozen=True, slots=True)
class RopeConfig:
    theta: float
    type: str
    parameters: Mapping[str, float]

    @classmethod
    def parse(cls, config: Mapping[str, Any]) -> RopeConfig:
        """Raises CheckpointError for a scaling that is not served."""
        given = config.get("rope_parameters") or config.get("rope_scaling") or {}
        kind = given.get("rope_type") or given.get("type") or "default"
        if kind not in ROPE_PARAMETERS:
            _refuse(f"rope scaling {kind!r} (known: {', '.join(ROPE_PARAMETERS)})")
        partial = given.get("partial_rotary_factor") or config.get("partial_rotary_factor")
        if partial and float(partial) != 1.0:
            _refuse("partial_rotary_factor")
        theta = given.get("rope_theta", config.get("rope_theta", 10_000.0))
        return cls(float(theta), kind, {name: float(given[name]) for name in ROPE_PARAMETERS[kind]})


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """A decoder's shape."""

    architecture: str
    family: Family
    dtype: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    norm_eps: float
    rope: RopeConfig
    attention_bias: bool
    mlp_bias: bool
    tied_embeddings: bool
    max_position: int

    @property
    def kv_elements_per_token(self) -> int:
        """Keys and values of all layers."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim

    @classmethod
    def parse(cls, config: Mapping[str, Any]) -> ModelConfig:
        """Raises CheckpointError for an unknown architecture or a feature that is not served."""
        try:
            architecture, family = _family(config)
            _refuse_unserved(config)
            hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
            parsed = cls(
                architecture=architecture,
                family=family,
                dtype=str(config.get("dtype") or config.get("torch_dtype") or "float32"),
                vocab_size=int(config["vocab_size"]),
                hidden_size=hidden,
                intermediate_size=int(config["intermediate_size"]),
                num_layers=int(config["num_hidden_layers"]),
                num_heads=heads,
                num_kv_heads=int(config.get("num_key_value_heads") or heads),
                head_dim=int(config.get("head_dim") or hidden // heads),
                norm_eps=float(config.get("rms_norm_eps", 1e-6)),
                rope=RopeConfig.parse(config),
                attention_bias=bool(config.get("attention_bias", False)),
                mlp_bias=bool(config.get("mlp_bias", False)),
                tied_embeddings=bool(config.get("tie_word_embeddings", False)),
                max_position=int(config.get("max_position_embeddings", 2048)),
            )
        except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"config.json: {error!r}", reason="config.json is incomplete or malformed"
            ) from error
        _refuse_impossible(parsed)
        return parsed


def _family(config: Mapping[str, Any]) -> tuple[str, Family]:
    architectures = config.get("architectures") or []
    for architecture in architectures:
        if architecture in FAMILIES:
            return architecture, FAMILIES[architecture]
    named = ", ".join(map(str, architectures)) or "none named"
    message = f"unknown architecture ({named}); known: {', '.join(FAMILIES)}"
    raise CheckpointError(message, reason=message)


def _refuse_unserved(config: Mapping[str, Any]) -> None:
    """A feature that would silently give wrong numbers is an error."""
    if config.get("quantization_config"):
        _refuse("quantization_config")
    if any(kind != "full_attention" for kind in config.get("layer_types") or []):
        _refuse("layer_types other than full_attention")
    if config.get("use_sliding_window"):
        _refuse("use_sliding_window")
    if config.get("hidden_act", "silu") != "silu":
        _refuse(f"hidden_act {config['hidden_act']!r}")


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
