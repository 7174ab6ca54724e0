"""A decoder layer's small operations on CUDA devices: one launch each."""

from __future__ import annotations

import torch

from engine.attention.cpu import KVLayer
from engine.attention.table_plan import TablePlan
from engine.kernels.gated import gated
from engine.kernels.rms_norm import add_rms_norm, rms_norm
from engine.kernels.rotate_write import rotate_write
from engine.models.config import ModelConfig
from engine.models.operations import HeadNorms, Rotation


class TritonOperations:
    """See ``engine.models.operations.Operations``."""

    def __init__(self, config: ModelConfig) -> None:
        self._config = config
        self._eps, self._kind = config.norm_eps, config.family.norm_weight

    def norm(self, x: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        if weight is None:
            return x
        out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        rms_norm(x, weight, self._eps, self._kind, out)
        return out

    def add_norm(
        self, x: torch.Tensor, mixed: torch.Tensor, weight: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        scale = self._config.residual_scale
        if weight is None:
            total = torch.add(x, mixed if scale == 1 else mixed * scale)
            return total, total
        total, out = torch.empty_like(x), torch.empty_like(x)
        add_rms_norm(x, mixed, scale, weight, self._eps, self._kind, total, out)
        return total, out

    def cache_heads(
        self,
        mixed: torch.Tensor,
        norms: HeadNorms | None,
        rotation: Rotation | None,
        plan: TablePlan,
        layer: KVLayer,
    ) -> torch.Tensor:
        heads, kv_heads = self._config.num_heads, self._config.num_kv_heads
        if norms and self._config.family.qk_norm == "projection":
            for part, weight in zip((mixed[:, :heads], mixed[:, heads:-kv_heads]), norms, strict=True):
                flat = part.flatten(1)
                rms_norm(flat, weight, self._eps, self._kind, flat)
            norms = None
        queries = torch.empty(len(mixed), heads, mixed.shape[2], dtype=mixed.dtype, device=mixed.device)
        norm = (*norms, self._eps, self._kind) if norms else None
        rotate_write(mixed, rotation, norm, plan.slots, layer, queries)
        return queries

    def gate(self, gate_up: torch.Tensor) -> torch.Tensor:
        out = torch.empty(len(gate_up), gate_up.shape[1] // 2, dtype=gate_up.dtype, device=gate_up.device)
        gated(gate_up, self._config.activation, out)
        return out
