"""The decoder that all families share: attention and gated MLP layers over paged KV.

A function of the weights' views, the KV cache's views and the step's tensors; it holds nothing that a sleep
would have to keep but the rotations' frequencies. Where families differ it reads a switch of ``ModelConfig``
or ``Family``; a norm that a family has not got is a parameter that is not there.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import layer_norm, rms_norm

from engine.attention import AttentionSpec, Plan, attention_for
from engine.linear import Linear
from engine.models.activations import FUNCTIONS
from engine.models.config import ModelConfig
from engine.models.moe import mixture
from engine.models.rope import Rope, rotate

KVLayers = Sequence[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values of each layer, as ``engine.kv_memory`` lays them out."""
Rotation = tuple[torch.Tensor, torch.Tensor]
"""Cosines and signed sines of a step's tokens."""


@dataclass(slots=True)
class Forward:
    """A pass of some tokens through the layers, as far as it has come."""

    x: torch.Tensor
    """[tokens, hidden size]"""
    rotations: Mapping[str, Rotation]
    plan: Plan
    kv: KVLayers
    layer: int = 0
    """The next one."""


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
        self.attention = attention_for(device)
        self._activation = FUNCTIONS[config.activation]
        self._ropes = {kind: Rope(rope, device) for kind, rope in config.used_ropes.items()}
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

    def begin(
        self,
        token_ids: torch.Tensor,
        positions: torch.Tensor,
        prompt_lengths: torch.Tensor,
        plan: Plan,
        kv: KVLayers,
    ) -> Forward:
        """A pass of tokens, their positions and their prompts' lengths [tokens], before its first layer."""
        x = self._linears["embed"].rows(token_ids)
        if self._embedding_scale != 1:
            x = x * self._embedding_scale
        rotations = {
            kind: rope(positions, prompt_lengths, self._rope_dtype) for kind, rope in self._ropes.items()
        }
        return Forward(x, rotations, plan, kv)

    def advance(self, forward: Forward) -> bool:
        """Compute the next layer; whether there are more."""
        index = forward.layer
        mixed = self._attention(index, self._norm(forward.x, f"{index}.before_attention"), forward)
        x = self._add(forward.x, self._norm(mixed, f"{index}.after_attention"))
        mixed = self._mlp(index, self._norm(x, f"{index}.before_mlp"), forward.plan.generated)
        forward.x = self._add(x, self._norm(mixed, f"{index}.after_mlp"))
        forward.layer += 1
        return forward.layer < self._config.num_layers

    def hidden(self, forward: Forward, rows: torch.Tensor) -> torch.Tensor:
        """Compute the layers that are left; what the head then sees of ``rows`` of the tokens, after the last
        norm: [rows, hidden size]."""
        while forward.layer < self._config.num_layers:
            self.advance(forward)
        return self._norm(forward.x[rows], "norm")

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[rows, hidden size] → float32 [rows, vocabulary]"""
        logits = self._linears[self._head](hidden, generated=True)
        if self._config.logits_divisor != 1:
            logits = logits / self._config.logits_divisor
        if cap := self._config.logits_softcap:
            logits = torch.tanh(logits / cap) * cap
        return logits.float()

    def _attention(self, index: int, x: torch.Tensor, forward: Forward) -> torch.Tensor:
        heads, kv_heads = self._config.num_heads, self._config.num_kv_heads
        plan, layer, kind = forward.plan, forward.kv[index], self._config.layers[index].rope
        mixed = self._linears[f"{index}.qkv"](x, generated=plan.generated)
        mixed = mixed.view(-1, heads + 2 * kv_heads, self._config.head_dim)
        both, values = mixed[:, : heads + kv_heads], mixed[:, heads + kv_heads :]
        if self._config.family.qk_norm:
            both = self._qk_norm(index, both)
        if kind:
            both = rotate(both, *forward.rotations[kind])
        self.attention.write(plan, layer, both[:, heads:], values)
        out = self.attention.attend(plan, layer, both[:, :heads], self._specs[index])
        return self._linears[f"{index}.o"](out.flatten(1), generated=plan.generated)

    def _qk_norm(self, index: int, both: torch.Tensor) -> torch.Tensor:
        """``both``: queries, then keys [tokens, heads + KV heads, head size]."""
        queries, keys = both[:, : self._config.num_heads], both[:, self._config.num_heads :]
        if self._config.family.qk_norm == "projection":
            queries, keys = queries.flatten(1), keys.flatten(1)
        queries, keys = self._norm(queries, f"{index}.q_norm"), self._norm(keys, f"{index}.k_norm")
        return torch.cat((queries, keys), dim=1).view(both.shape)

    def _mlp(self, index: int, x: torch.Tensor, generated: bool) -> torch.Tensor:
        experts = self._config.experts
        gated = functools.partial(self._gated, generated=generated)
        if experts is None or not self._config.layers[index].sparse:
            return gated(x, f"{index}.")
        scores = self._linears[f"{index}.router"](x, generated=generated)
        # Few rows of a prompt are multiplied as generated ones are, which is faster for them.
        each = functools.partial(self._gated, generated=generated or experts.fine)
        mixed = mixture(x, scores, experts, each, f"{index}.experts.")
        if experts.shared_size is None:
            return mixed
        share = torch.sigmoid(self._linears[f"{index}.shared_share"](x, generated=generated))
        return mixed + share * gated(x, f"{index}.shared.")

    def _gated(self, x: torch.Tensor, name: str, *, generated: bool) -> torch.Tensor:
        gate, up = self._linears[f"{name}gate_up"](x, generated=generated).chunk(2, dim=-1)
        return self._linears[f"{name}down"](self._activation(gate) * up, generated=generated)

    def _add(self, x: torch.Tensor, mixed: torch.Tensor) -> torch.Tensor:
        scale = self._config.residual_scale
        return x + mixed if scale == 1 else x + mixed * scale

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        """RMS norm (Zhang and Sennrich, 2019) of the last dimension, rounded where the reference rounds;
        ``x`` itself where the family has no such norm."""
        weight = self._weights.get(name)
        if weight is None:
            return x
        size, eps = weight.shape, self._config.norm_eps
        if self._config.family.norm_weight == "rounded":
            return _rms_norm(x, eps) * weight
        if self._config.family.norm_weight == "wide":
            return rms_norm(x, size, weight, eps)
        return rms_norm(x.float(), size, 1.0 + weight.float(), eps).to(x.dtype)


def _rms_norm(x: torch.Tensor, eps: float) -> torch.Tensor:
    """Without a weight, in the one kernel that torch has for CPUs: x beside -x has no mean, and the variance
    of x's mean square."""
    both = torch.cat((x, -x), dim=-1)
    return layer_norm(both, both.shape[-1:], eps=eps)[..., : x.shape[-1]]
