"""A mixture of experts in place of an MLP (Shazeer et al., 2017; Jiang et al., 2024).

A token's rows are grouped by expert, so that each expert's matrices are read once a step; what its experts
say is added up in the order of their weights, whatever else is in the step.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from engine.models.experts_config import ExpertsConfig

Gated = Callable[[torch.Tensor, str], torch.Tensor]
"""The gated MLP of this name, [rows, hidden] → [rows, hidden]."""


def mixture(
    x: torch.Tensor, scores: torch.Tensor, config: ExpertsConfig, gated: Gated, name: str
) -> torch.Tensor:
    """x [rows, hidden] and the router's scores [rows, experts] → [rows, hidden]."""
    weights, chosen = route(scores, config)
    order = chosen.flatten().argsort(stable=True)
    counts = torch.bincount(chosen.flatten(), minlength=config.count).tolist()
    parts = x[order // config.per_token].split_with_sizes(counts)
    said = [gated(part, f"{name}{expert}.") for expert, part in enumerate(parts) if len(part)]
    by_token = x.new_empty(len(order), x.shape[-1])
    by_token[order] = torch.cat(said)
    weighted = by_token.view(*chosen.shape, -1) * weights.unsqueeze(-1)
    return weighted.sum(dim=1).to(x.dtype)


def route(scores: torch.Tensor, config: ExpertsConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """Each row's experts and their weights, best first: float32 and int64 [rows, experts per token]."""
    weights, chosen = scores.float().softmax(dim=-1).topk(config.per_token, dim=-1)
    if config.normalize:
        weights = weights / weights.sum(dim=-1, keepdim=True)
    return weights, chosen
