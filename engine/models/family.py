"""Where a family of decoders differs from the others: the switches that config and decoder read.

No torch in here: an estimate needs none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from engine.models import layer_types
from engine.models.experts_config import QWEN_EXPERTS, ExpertNames


@dataclass(frozen=True, slots=True, kw_only=True)
class Norms:
    """What a layer's norms are called in the files, by where they stand; None where there is none."""

    before_attention: str | None = None
    after_attention: str | None = None
    before_mlp: str | None = None
    after_mlp: str | None = None


PRE_NORMS = Norms(before_attention="input_layernorm", before_mlp="post_attention_layernorm")
POST_NORMS = Norms(after_attention="post_attention_layernorm", after_mlp="post_feedforward_layernorm")
SANDWICH_NORMS = Norms(
    before_attention="input_layernorm",
    after_attention="post_attention_layernorm",
    before_mlp="pre_feedforward_layernorm",
    after_mlp="post_feedforward_layernorm",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    name: str
    """The ``model_type`` of its config.json."""
    norms: Norms = PRE_NORMS
    norm_weight: Literal["rounded", "wide", "one_plus"] = "rounded"
    """The normed row is rounded before the weight, or after it, or after one more than the weight."""
    qk_norm: Literal["head", "projection"] | None = None
    """An RMS norm of queries and keys before the rotation: over each head, or over all heads together."""
    qkv_bias: bool = False
    """Biases of queries, keys and values only, whatever config.json says."""
    fused: bool = False
    """The files hold q+k+v, and gate+up, as one tensor each."""
    scaled_embeddings: bool = False
    """Embeddings are multiplied by the square root of their size, rounded to their dtype."""
    wide_rope: bool = False
    """Rotations are computed in float32."""
    partial_rope: bool = False
    """A config.json may have only the first part of each head rotated; other families overlook its word."""
    rope_names: Mapping[str, str] = field(default_factory=dict)
    """What rope types of this family's files are called elsewhere."""
    local_rope_theta: float | None = None
    """Sliding layers have a rope of their own, with this base unless config.json gives another."""
    experts: ExpertNames = QWEN_EXPERTS
    """Where the files have experts."""
    layer_types: Callable[[Mapping[str, Any]], Sequence[str]] = layer_types.full
    """From the config, defaults filled in, to each layer's kind of attention."""
    defaults: Mapping[str, Any]
    """The keys of config.json that the family knows (rope aside), with what a missing one means."""
