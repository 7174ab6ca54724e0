"""Rotary position embeddings: frequencies by scaling type, and the table of cosines and sines.

RoFormer (Su et al., 2021); position interpolation (Chen et al., 2023) for ``linear``; Meta's rule for
Llama 3.1 for ``llama3``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from engine.models.config import RopeConfig


def rope_table(rope: RopeConfig, dim: int, length: int, dtype: torch.dtype) -> torch.Tensor:
    """Cosines and sines of every position: [2, length, dim / 2]."""
    angles = torch.outer(torch.arange(length).float(), inverse_frequencies(rope, dim))
    return torch.stack((angles.cos(), angles.sin())).to(dtype)


def inverse_frequencies(rope: RopeConfig, dim: int) -> torch.Tensor:
    """float32 [dim / 2]."""
    base = 1.0 / rope.theta ** (torch.arange(0, dim, 2, dtype=torch.int64).float() / dim)
    return _SCALINGS[rope.type](base, rope.parameters)


def apply_rope(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate the two halves of each head: x [tokens, heads, dim], cos and sin [tokens, 1, dim / 2]."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def _plain(base: torch.Tensor, parameters: Mapping[str, float]) -> torch.Tensor:
    return base


def _linear(base: torch.Tensor, parameters: Mapping[str, float]) -> torch.Tensor:
    return base / parameters["factor"]


def _llama3(base: torch.Tensor, parameters: Mapping[str, float]) -> torch.Tensor:
    """Slow frequencies are divided by the factor, fast ones kept, those between blended."""
    factor, original = parameters["factor"], parameters["original_max_position_embeddings"]
    low, high = parameters["low_freq_factor"], parameters["high_freq_factor"]
    wavelength = 2 * math.pi / base
    blend = (original / wavelength - low) / (high - low)
    blended = (1 - blend) * base / factor + blend * base
    scaled = torch.where(wavelength > original / low, base / factor, blended)
    return torch.where(wavelength < original / high, base, scaled)


_SCALINGS = {"default": _plain, "linear": _linear, "llama3": _llama3}
