"""From the hidden states of an input's tokens to its vector. Sentence-BERT (Reimers and Gurevych, 2019)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch.nn.functional import gelu, linear, normalize

from engine.sentence import DenseLayer, SentenceConfig

_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "Identity": lambda x: x,
    "Tanh": torch.tanh,
    "ReLU": torch.relu,
    "GELU": gelu,
    "Sigmoid": torch.sigmoid,
}


def _weighted_mean(hidden: torch.Tensor) -> torch.Tensor:
    """Later tokens count more (Muennighoff, 2022)."""
    weights = torch.arange(1, len(hidden) + 1, device=hidden.device).float().unsqueeze(1)
    return (hidden * weights).sum(0) / weights.sum()


_POOLINGS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "cls": lambda hidden: hidden[0],
    "max": lambda hidden: hidden.amax(0),
    "mean": lambda hidden: hidden.mean(0),
    "mean_sqrt_len_tokens": lambda hidden: hidden.sum(0) / len(hidden) ** 0.5,
    "weightedmean": _weighted_mean,
    "lasttoken": lambda hidden: hidden[-1],
}


class Pooling:
    """``weights`` by the names of ``dense_parameters``."""

    def __init__(self, config: SentenceConfig, weights: Mapping[str, torch.Tensor]) -> None:
        self._config = config
        self._weights = weights

    def vector(self, hidden: torch.Tensor, dimensions: int | None = None) -> torch.Tensor:
        """[tokens, hidden] → float32 [size], or its first ``dimensions``, normalised again."""
        wide = hidden.float()
        x = torch.cat([_POOLINGS[mode](wide) for mode in self._config.modes])
        for layer in self._config.dense:
            x = self._dense(x, layer)
        if dimensions is not None:
            return normalize(x[:dimensions], dim=0)
        return normalize(x, dim=0) if self._config.normalize else x

    def to_keep(self, hidden: torch.Tensor) -> torch.Tensor:
        """Those of an input's first tokens that its vector will need."""
        return hidden[:0] if self._config.modes == ("lasttoken",) else hidden

    def _dense(self, x: torch.Tensor, layer: DenseLayer) -> torch.Tensor:
        weight, bias = self._weights[f"{layer.folder}.weight"], self._weights.get(f"{layer.folder}.bias")
        return _ACTIVATIONS[layer.activation](linear(x.to(weight.dtype), weight, bias).float())
