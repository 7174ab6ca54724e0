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

from engine.attention import AttentionSpec, Plan, attention_for
from engine.linear import Linear
from engine.models.config import ModelConfig
from engine.models.moe import mixture
from engine.models.operations import Rotation, operations_for
from engine.models.rope import Rope

KVLayers = Sequence[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values of each layer, as ``engine.kv_memory`` lays them out."""


@dataclass(slots=True)
class Forward:
    """A pass of some tokens through the layers, as far as it has come."""

    x: torch.Tensor
    """[tokens, hidden size]"""
    mixed: torch.Tensor | None
    """What the last layer has made of it, to be added to it."""
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
        self._operations = operations_for(config, device)
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

    @property
    def vocabulary(self) -> int:
        """Tokens that there are logits of."""
        return len(self._weights[f"{self._head}.weight"])

    @property
    def steady(self) -> bool:
        """Whether a pass of so many rows always launches the same, whatever is in them: experts are called
        as they are chosen."""
        return self._config.experts is None

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
        return Forward(x, None, rotations, plan, kv)

    def advance(self, forward: Forward) -> bool:
        """Compute the next layer; whether there are more."""
        index = forward.layer
        x, normed = self._add_norm(forward.x, forward.mixed, f"{index}.before_attention")
        mixed = self._norm(self._attention(index, normed, forward), f"{index}.after_attention")
        x, normed = self._add_norm(x, mixed, f"{index}.before_mlp")
        mixed = self._norm(self._mlp(index, normed, forward.plan.generated), f"{index}.after_mlp")
        forward.x, forward.mixed = x, mixed
        forward.layer += 1
        return forward.layer < self._config.num_layers

    def hidden(self, forward: Forward, rows: torch.Tensor | None = None) -> torch.Tensor:
        """Compute the layers that are left; what the head then sees of ``rows`` of the tokens, or of all,
        after the last norm: [rows, hidden size]."""
        while forward.layer < self._config.num_layers:
            self.advance(forward)
        x, mixed = forward.x, forward.mixed
        if rows is not None:
            x, mixed = x[rows], None if mixed is None else mixed[rows]
        return self._add_norm(x, mixed, "norm")[1]

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[rows, hidden size] → float32 [rows, vocabulary]"""
        logits = self._linears[self._head](hidden, generated=True)
        if self._config.logits_divisor != 1:
            logits = logits / self._config.logits_divisor
        if cap := self._config.logits_softcap:
            logits = torch.tanh(logits / cap) * cap
        return logits.float()

    def _attention(self, index: int, x: torch.Tensor, forward: Forward) -> torch.Tensor:
        heads = self._config.num_heads + 2 * self._config.num_kv_heads
        plan, layer, kind = forward.plan, forward.kv[index], self._config.layers[index].rope
        mixed = self._linears[f"{index}.qkv"](x, generated=plan.generated)
        norms = None
        if self._config.family.qk_norm:
            norms = self._weights[f"{index}.q_norm"], self._weights[f"{index}.k_norm"]
        rotation = forward.rotations[kind] if kind else None
        mixed = mixed.view(-1, heads, self._config.head_dim)
        queries = self._operations.cache_heads(mixed, norms, rotation, plan, layer)
        out = self.attention.attend(plan, layer, queries, self._specs[index])
        return self._linears[f"{index}.o"](out.flatten(1), generated=plan.generated)

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
        inner = self._operations.gate(self._linears[f"{name}gate_up"](x, generated=generated))
        return self._linears[f"{name}down"](inner, generated=generated)

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        """``x`` itself where the family has no such norm."""
        return self._operations.norm(x, self._weights.get(name))

    def _add_norm(
        self, x: torch.Tensor, mixed: torch.Tensor | None, name: str
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The sum, and its norm."""
        weight = self._weights.get(name)
        if mixed is None:
            return x, self._operations.norm(x, weight)
        return self._operations.add_norm(x, mixed, weight)
