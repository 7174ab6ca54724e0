"""Rotary position embeddings: frequencies by scaling type, and the rotation of heads.

RoFormer (Su et al., 2021); position interpolation (Chen et al., 2023) for ``linear``; Meta's rule for
Llama 3.1 for ``llama3``; NTK by parts with a temperature (Peng et al., 2023) for ``yarn``; LongRoPE (Ding et
al., 2024) for ``longrope``.

Two types look at the sequence's length: ``longrope`` takes its long factors beyond the original length, and
``dynamic`` (NTK-aware scaling) grows its base with it. A token is rotated for the length that its sequence
has when the reference computes it: the prompt's, or for a decoded token its own place; keys in the cache keep
the rotation that they were made with. So it depends on nothing but prompt and position: not on neighbours in
the batch, on chunks or on recomputation.
"""

from __future__ import annotations

import math

import torch

from engine.models.rope_config import RopeConfig


class Rope:
    """The rotations of one kind of layer."""

    def __init__(self, config: RopeConfig, device: torch.device) -> None:
        self._config = config
        exponents = torch.arange(0, config.dim, 2, dtype=torch.int64).float() / config.dim
        frequencies, self._scale = _SCALINGS[config.type](config, exponents)
        self._exponents = torch.cat((exponents, exponents)).to(device)
        self._frequencies = torch.cat((frequencies, frequencies), -1).to(device)
        """Of both halves, float32 [dim]; of ``longrope`` [2, dim]: short and long."""
        self._signs = torch.tensor((-self._scale, self._scale)).repeat_interleave(len(exponents)).to(device)

    def __call__(
        self, positions: torch.Tensor, prompt_lengths: torch.Tensor, dtype: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """int64 [tokens] each → cosines and signed sines [tokens, 1, dim], for ``rotate``."""
        angles = positions.unsqueeze(1).float() * self._of(positions, prompt_lengths)
        cos, sin = angles.cos(), angles.sin() * self._signs
        if self._scale != 1:
            cos = cos * self._scale
        return cos.unsqueeze(1).to(dtype), sin.unsqueeze(1).to(dtype)

    def _of(self, positions: torch.Tensor, prompt_lengths: torch.Tensor) -> torch.Tensor:
        """Inverse frequencies [dim] or [tokens, dim]."""
        if self._config.type not in ("longrope", "dynamic"):
            return self._frequencies
        beyond = torch.maximum(positions + 1, prompt_lengths) - self._config.original_length
        if self._config.type == "longrope":
            return self._frequencies[(beyond > 0).long()]
        stretch = 1 + self._config.parameters["factor"] * beyond.clamp(min=0) / self._config.original_length
        dim = self._config.dim
        base: torch.Tensor = self._config.theta * stretch ** (dim / (dim - 2))
        return base.unsqueeze(1) ** -self._exponents


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate the first ``dim`` numbers of each head, its halves against each other:
    x [tokens, heads, head size], cos and sin [tokens, 1, dim]."""
    dim = cos.shape[-1]
    if dim < x.shape[-1]:
        return torch.cat((rotate(x[..., :dim], cos, sin), x[..., dim:]), -1)
    return (x * cos + x.roll(dim // 2, -1) * sin).to(x.dtype)


def _plain(config: RopeConfig, exponents: torch.Tensor) -> tuple[torch.Tensor, float]:
    return 1.0 / config.theta**exponents, 1.0


def _linear(config: RopeConfig, exponents: torch.Tensor) -> tuple[torch.Tensor, float]:
    return _plain(config, exponents)[0] / config.parameters["factor"], 1.0


def _llama3(config: RopeConfig, exponents: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Slow frequencies are divided by the factor, fast ones kept, those between blended."""
    base, factor, original = _plain(config, exponents)[0], config.parameters["factor"], config.original_length
    low, high = config.parameters["low_freq_factor"], config.parameters["high_freq_factor"]
    wavelength = 2 * math.pi / base
    blend = (original / wavelength - low) / (high - low)
    blended = (1 - blend) * base / factor + blend * base
    scaled = torch.where(wavelength > original / low, base / factor, blended)
    return torch.where(wavelength < original / high, base, scaled), 1.0


def _yarn(config: RopeConfig, exponents: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Frequencies that turn often within the original length are kept, rare ones divided by the factor."""
    given, base = config.parameters, _plain(config, exponents)[0]

    def place(turns: float) -> float:
        """Of the frequency that turns so often within the original length."""
        wavelength = config.original_length / (turns * 2 * math.pi)
        return config.dim * math.log(wavelength) / (2 * math.log(config.theta))

    first, last = place(given["beta_fast"]), place(given["beta_slow"])
    if given["truncate"]:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, config.dim - 1)
    ramp = (torch.arange(len(base)) - first) / ((last - first) or 0.001)
    blend = ramp.clamp(0, 1)
    return base / given["factor"] * blend + base * (1 - blend), _yarn_scale(config)


def _yarn_scale(config: RopeConfig) -> float:
    """The temperature of attention, as a factor of cosines and sines."""
    given = config.parameters

    def magnitude(weight: float) -> float:
        return 0.1 * weight * math.log(given["factor"]) + 1.0 if given["factor"] > 1 else 1.0

    if given["attention_factor"] is not None:
        return float(given["attention_factor"])
    if given["mscale"] and given["mscale_all_dim"]:
        return magnitude(given["mscale"]) / magnitude(given["mscale_all_dim"])
    return magnitude(1.0)


def _longrope(config: RopeConfig, exponents: torch.Tensor) -> tuple[torch.Tensor, float]:
    given, base = config.parameters, config.theta**exponents
    factors = torch.tensor((given["short_factor"], given["long_factor"]))
    scale = given["attention_factor"]
    if scale is None:
        growth = math.log(max(given["factor"], 1.0)) / math.log(config.original_length)
        scale = math.sqrt(1 + growth)
    return 1.0 / (factors * base), scale


_SCALINGS = {
    "default": _plain,
    "linear": _linear,
    "dynamic": _plain,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}
