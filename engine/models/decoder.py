"""The decoder that all families share: attention and gated MLP layers over paged KV.

A function of the weights' views, the KV cache's views and the step's tensors; it holds nothing that a sleep
would have to keep but the rotations' frequencies. Where families differ it reads a switch of ``ModelConfig``
or ``Family``; a norm that a family has not got is a parameter that is not there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

import torch
from torch.nn.functional import gelu, relu, rms_norm, silu

from engine.attention import AttentionPlan, AttentionSpec, attend, write_kv
from engine.linear import Linear
from engine.models.config import ModelConfig
from engine.models.moe import mixture
from engine.models.rope import Rope, rotate

KVLayers = Sequence[tuple[torch.Tensor, torch.Tensor]]
Rotation = tuple[torch.Tensor, torch.Tensor]
"""Cosines and signed sines of a step's tokens."""

_ACTIVATIONS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "silu": silu,
    "swish": silu,
    "gelu": gelu,
    **dict.fromkeys(
        ("gelu_new", "gelu_fast", "gelu_pytorch_tanh"), functools.partial(gelu, approximate="tanh")
    ),
    "relu": relu,
}


class Decoder:
    """``weights`` by the names of ``decoder_parameters``."""

    def __init__(
        self, config: ModelConfig, weights: Mapping[str, torch.Tensor], device: torch.device
    ) -> None:
        self._config = config
        self._weights = weights
        self._head = "embed" if config.tied_embeddings else "head"
        self._linears = {
            name: Linear(weight, weights.get(f"{name}.bias"))
            for key, weight in weights.items()
            if (name := key.removesuffix(".weight")) != key and weight.ndim == 2
        }
        self._activation = _ACTIVATIONS[config.activation]
        used = {layer.rope for layer in config.layers}
        self._ropes = {kind: Rope(rope, device) for kind, rope in config.ropes.items() if kind in used}
        self._rope_dtype = torch.float32 if config.family.wide_rope else weights["embed.weight"].dtype
        self._embedding_scale = config.embedding_scale
        if config.family.scaled_embeddings:
            rounded = torch.tensor(config.embedding_scale, dtype=weights["embed.weight"].dtype)
            self._embedding_scale = rounded.item()
        self._specs = [
            AttentionSpec(config.attention_scale, layer.window, config.attention_softcap)
            for layer in config.layers
        ]

    @property
    def linears(self) -> list[Linear]:
        """Those that multiply, in the order of use."""
        return [layer for name, layer in self._linears.items() if name != "embed" or self._head == "embed"]

    @property
    def nbytes(self) -> int:
        """What it holds itself."""
        return sum(rope.nbytes for rope in self._ropes.values())

    def forward(
        self,
        token_ids: torch.Tensor,
        positions: torch.Tensor,
        prompt_lengths: torch.Tensor,
        plan: AttentionPlan,
        kv: KVLayers,
        rows: torch.Tensor,
    ) -> torch.Tensor:
        """Tokens, their positions and their prompts' lengths [tokens] → logits of ``rows`` of them,
        float32 [rows, vocabulary]."""
        return self.logits(self.hidden(token_ids, positions, prompt_lengths, plan, kv, rows))

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[rows, hidden size] → float32 [rows, vocabulary]"""
        logits = self._linear(hidden, self._head)
        if self._config.logits_divisor != 1:
            logits = logits / self._config.logits_divisor
        if cap := self._config.logits_softcap:
            logits = torch.tanh(logits / cap) * cap
        return logits.float()

    def hidden(
        self,
        token_ids: torch.Tensor,
        positions: torch.Tensor,
        prompt_lengths: torch.Tensor,
        plan: AttentionPlan,
        kv: KVLayers,
        rows: torch.Tensor,
    ) -> torch.Tensor:
        """What the head sees: [rows, hidden size], after the last norm."""
        x = self._linears["embed"].rows(token_ids)
        if self._embedding_scale != 1:
            x = x * self._embedding_scale
        rotations = {
            kind: rope(positions, prompt_lengths, self._rope_dtype) for kind, rope in self._ropes.items()
        }
        for index, layer in enumerate(self._config.layers):
            rotation = rotations[layer.rope] if layer.rope else None
            mixed = self._attention(index, self._norm(x, f"{index}.before_attention"), rotation, plan, kv)
            x = self._add(x, self._norm(mixed, f"{index}.after_attention"))
            mixed = self._mlp(index, self._norm(x, f"{index}.before_mlp"))
            x = self._add(x, self._norm(mixed, f"{index}.after_mlp"))
        return self._norm(x[rows], "norm")

    def _attention(
        self, index: int, x: torch.Tensor, rotation: Rotation | None, plan: AttentionPlan, kv: KVLayers
    ) -> torch.Tensor:
        heads, kv_heads = self._config.num_heads, self._config.num_kv_heads
        mixed = self._linear(x, f"{index}.qkv").view(-1, heads + 2 * kv_heads, self._config.head_dim)
        both, values = mixed[:, : heads + kv_heads], mixed[:, heads + kv_heads :]
        if self._config.family.qk_norm:
            both = self._qk_norm(index, both)
        if rotation:
            both = rotate(both, *rotation)
        write_kv(plan, kv[index], both[:, heads:], values)
        out = attend(plan, kv[index], both[:, :heads], self._specs[index])
        return self._linear(out.flatten(1), f"{index}.o")

    def _qk_norm(self, index: int, both: torch.Tensor) -> torch.Tensor:
        """``both``: queries, then keys [tokens, heads + KV heads, head size]."""
        queries, keys = both[:, : self._config.num_heads], both[:, self._config.num_heads :]
        if self._config.family.qk_norm == "projection":
            queries, keys = queries.flatten(1), keys.flatten(1)
        queries, keys = self._norm(queries, f"{index}.q_norm"), self._norm(keys, f"{index}.k_norm")
        return torch.cat((queries, keys), dim=1).view(both.shape)

    def _mlp(self, index: int, x: torch.Tensor) -> torch.Tensor:
        experts = self._config.experts
        if experts is None or not self._config.layers[index].sparse:
            return self._gated(x, f"{index}.")
        scores = self._linear(x, f"{index}.router")
        mixed = mixture(x, scores, experts, self._gated, f"{index}.experts.")
        if experts.shared_size is None:
            return mixed
        share = torch.sigmoid(self._linear(x, f"{index}.shared_share"))
        return mixed + share * self._gated(x, f"{index}.shared.")

    def _gated(self, x: torch.Tensor, name: str) -> torch.Tensor:
        gate, up = self._linear(x, f"{name}gate_up").chunk(2, dim=-1)
        return self._linear(self._activation(gate) * up, f"{name}down")

    def _add(self, x: torch.Tensor, mixed: torch.Tensor) -> torch.Tensor:
        scale = self._config.residual_scale
        return x + mixed if scale == 1 else x + mixed * scale

    def _linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return self._linears[name](x)

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        """RMS norm (Zhang and Sennrich, 2019) of the last dimension, rounded where the reference rounds;
        ``x`` itself where the family has no such norm."""
        weight = self._weights.get(name)
        if weight is None:
            return x
        size, eps = weight.shape, self._config.norm_eps
        if self._config.family.norm_weight == "rounded":
            return rms_norm(x, size, eps=eps) * weight
        if self._config.family.norm_weight == "wide":
            return rms_norm(x, size, weight, eps)
        return rms_norm(x.float(), size, 1.0 + weight.float(), eps).to(x.dtype)
