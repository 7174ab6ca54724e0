"""What a decoder layer does between its products: norms, sums, heads on their way into the cache, gates."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch.nn.functional import layer_norm, rms_norm

from engine.attention.cpu import KVLayer, write_kv
from engine.models.activations import FUNCTIONS
from engine.models.config import ModelConfig
from engine.models.rope import rotate

Rotation = tuple[torch.Tensor, torch.Tensor]
"""Cosines and signed sines of a step's tokens."""
HeadNorms = tuple[torch.Tensor, torch.Tensor]
"""Weights of the norms of queries and of keys."""


class Operations(Protocol):
    """Those of one model. A ``weight`` of None is a norm that the family has not got."""

    def norm(self, x: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        """RMS norm (Zhang and Sennrich, 2019) of the last dimension, rounded where the reference rounds."""

    def add_norm(
        self, x: torch.Tensor, mixed: torch.Tensor, weight: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The sum of the residual and what a half of a layer made of it, and the norm of that."""

    def cache_heads(
        self,
        mixed: torch.Tensor,
        norms: HeadNorms | None,
        rotation: Rotation | None,
        plan: Any,
        layer: KVLayer,
    ) -> torch.Tensor:
        """mixed [rows, heads + 2 x KV heads, head size], queries first → queries, normed and turned; so are
        keys, which with the values are put into their slots. ``plan``: of the device's attention."""

    def gate(self, gate_up: torch.Tensor) -> torch.Tensor:
        """[rows, 2 x size], gates first → [rows, size]."""


class TorchOperations:
    """See ``Operations``. Made of torch's own; the reference for every other."""

    def __init__(self, config: ModelConfig) -> None:
        self._config = config
        self._kind = config.family.norm_weight
        self._activation = FUNCTIONS[config.activation]

    def norm(self, x: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        if weight is None:
            return x
        size, eps = weight.shape, self._config.norm_eps
        if self._kind == "rounded":
            return _rms_norm(x, eps) * weight
        if self._kind == "wide":
            return rms_norm(x, size, weight, eps)
        return rms_norm(x.float(), size, 1.0 + weight.float(), eps).to(x.dtype)

    def add_norm(
        self, x: torch.Tensor, mixed: torch.Tensor, weight: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        scale = self._config.residual_scale
        total = x + mixed if scale == 1 else x + mixed * scale
        return total, self.norm(total, weight)

    def cache_heads(
        self,
        mixed: torch.Tensor,
        norms: HeadNorms | None,
        rotation: Rotation | None,
        plan: Any,
        layer: KVLayer,
    ) -> torch.Tensor:
        heads, kv_heads = self._config.num_heads, self._config.num_kv_heads
        both, values = mixed[:, : heads + kv_heads], mixed[:, heads + kv_heads :]
        if norms:
            both = self._norm_heads(both, norms)
        if rotation:
            both = rotate(both, *rotation)
        write_kv(plan, layer, both[:, heads:], values)
        return both[:, :heads]

    def _norm_heads(self, both: torch.Tensor, norms: HeadNorms) -> torch.Tensor:
        """``both``: queries, then keys [rows, heads + KV heads, head size]."""
        queries, keys = both[:, : self._config.num_heads], both[:, self._config.num_heads :]
        if self._config.family.qk_norm == "projection":
            queries, keys = queries.flatten(1), keys.flatten(1)
        queries, keys = self.norm(queries, norms[0]), self.norm(keys, norms[1])
        return torch.cat((queries, keys), dim=1).view(both.shape)

    def gate(self, gate_up: torch.Tensor) -> torch.Tensor:
        gate, up = gate_up.chunk(2, dim=-1)
        return self._activation(gate) * up


def operations_for(config: ModelConfig, device: torch.device) -> Operations:
    """Torch's, or Triton's."""
    if device.type != "cuda":
        return TorchOperations(config)
    from engine.models.triton_operations import TritonOperations

    return TritonOperations(config)


def _rms_norm(x: torch.Tensor, eps: float) -> torch.Tensor:
    """Without a weight, in the one kernel that torch has for CPUs: x beside -x has no mean, and the variance
    of x's mean square."""
    both = torch.cat((x, -x), dim=-1)
    return layer_norm(both, both.shape[-1:], eps=eps)[..., : x.shape[-1]]
