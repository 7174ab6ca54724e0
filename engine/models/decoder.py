"""The decoder that all dense families share: pre-norm attention and gated MLP layers over paged KV.

A function of the weights' views, the KV cache's views and the step's tensors; it holds no state of its own,
so it is as valid after a sleep as before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch.nn.functional import linear, silu

from engine.attention import AttentionPlan, attend, write_kv
from engine.models.config import ModelConfig
from engine.models.rope import apply_rope
from engine.weights import Parameter

KVLayers = Sequence[tuple[torch.Tensor, torch.Tensor]]


def decoder_parameters(config: ModelConfig) -> list[Parameter]:
    """Every parameter and the checkpoint tensors that it is stacked from, in the order of use."""
    hidden, inner = config.hidden_size, config.intermediate_size
    q, kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    found = [_single("embed", "model.embed_tokens.weight", (config.vocab_size, hidden))]
    for index in range(config.num_layers):
        ours, theirs = f"{index}.", f"model.layers.{index}."
        attention, mlp = theirs + "self_attn.", theirs + "mlp."
        found.append(_single(ours + "input_norm", theirs + "input_layernorm.weight", (hidden,)))
        for kind, wanted in (("weight", True), ("bias", config.attention_bias)):
            if wanted:
                tail = (hidden,) if kind == "weight" else ()
                rows = (
                    (f"{attention}{n}_proj.{kind}", (size, *tail))
                    for n, size in zip("qkv", (q, kv, kv), strict=True)
                )
                found.append(Parameter(f"{ours}qkv.{kind}", tuple(rows)))
                shape = (hidden, q) if kind == "weight" else (hidden,)
                found.append(_single(f"{ours}o.{kind}", f"{attention}o_proj.{kind}", shape))
        if config.family.qk_norm:
            found.append(_single(ours + "q_norm", attention + "q_norm.weight", (config.head_dim,)))
            found.append(_single(ours + "k_norm", attention + "k_norm.weight", (config.head_dim,)))
        found.append(_single(ours + "post_norm", theirs + "post_attention_layernorm.weight", (hidden,)))
        for kind, wanted in (("weight", True), ("bias", config.mlp_bias)):
            if wanted:
                tail = (hidden,) if kind == "weight" else ()
                rows = ((f"{mlp}{n}_proj.{kind}", (inner, *tail)) for n in ("gate", "up"))
                found.append(Parameter(f"{ours}gate_up.{kind}", tuple(rows)))
                shape = (hidden, inner) if kind == "weight" else (hidden,)
                found.append(_single(f"{ours}down.{kind}", f"{mlp}down_proj.{kind}", shape))
    found.append(_single("norm", "model.norm.weight", (hidden,)))
    if not config.tied_embeddings:
        found.append(_single("head", "lm_head.weight", (config.vocab_size, hidden)))
    return found


def _single(name: str, source: str, shape: tuple[int, ...]) -> Parameter:
    return Parameter(name, ((source, shape),))


class Decoder:
    """``weights`` by the names of ``decoder_parameters``; ``rope`` [2, positions, head size / 2]."""

    def __init__(self, config: ModelConfig, weights: Mapping[str, torch.Tensor], rope: torch.Tensor) -> None:
        self._config = config
        self._weights = weights
        self._rope = rope
        self._head = weights["embed"] if config.tied_embeddings else weights["head"]

    def forward(
        self,
        token_ids: torch.Tensor,
        positions: torch.Tensor,
        plan: AttentionPlan,
        kv: KVLayers,
        rows: torch.Tensor,
    ) -> torch.Tensor:
        """Tokens and positions [tokens] → logits of ``rows`` of them, float32 [rows, vocabulary]."""
        x = self._weights["embed"][token_ids]
        cos, sin = self._rope[:, positions].unsqueeze(2)
        for index in range(self._config.num_layers):
            x = x + self._attention(index, x, cos, sin, plan, kv[index])
            x = x + self._mlp(index, x)
        return linear(self._norm(x[rows], "norm"), self._head).float()

    def _attention(
        self,
        index: int,
        x: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        plan: AttentionPlan,
        layer: tuple[torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        config = self._config
        heads, kv_heads, size = config.num_heads, config.num_kv_heads, config.head_dim
        mixed = self._linear(self._norm(x, f"{index}.input_norm"), f"{index}.qkv")
        mixed = mixed.view(-1, heads + 2 * kv_heads, size)
        queries, keys, values = torch.split(mixed, [heads, kv_heads, kv_heads], dim=1)
        if config.family.qk_norm:
            queries = self._norm(queries, f"{index}.q_norm")
            keys = self._norm(keys, f"{index}.k_norm")
        queries, keys = apply_rope(queries, cos, sin), apply_rope(keys, cos, sin)
        write_kv(plan, layer, keys, values)
        out = attend(plan, layer, queries, size**-0.5)
        return self._linear(out.flatten(1), f"{index}.o")

    def _mlp(self, index: int, x: torch.Tensor) -> torch.Tensor:
        gate, up = self._linear(self._norm(x, f"{index}.post_norm"), f"{index}.gate_up").chunk(2, dim=-1)
        return self._linear(silu(gate) * up, f"{index}.down")

    def _linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return linear(x, self._weights[name + ".weight"], self._weights.get(name + ".bias"))

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        """RMS norm (Zhang and Sennrich, 2019), rounded before the weight as the reference does it."""
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self._config.norm_eps)
        return self._weights[name] * wide.to(x.dtype)
