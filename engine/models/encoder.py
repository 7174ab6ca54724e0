"""The encoder that all BERT-style families share: post-norm attention over the whole input, and an MLP.

BERT (Devlin et al., 2019). Inputs of a step are packed without padding: their rows share the matrix products,
and each attends to itself alone, so that no input is computed otherwise for its neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch.nn.functional import layer_norm, scaled_dot_product_attention

from engine.linear import Linear
from engine.models.activations import FUNCTIONS
from engine.models.encoder_config import EncoderConfig

_FARTHEST = 128
"""Distances from here on share the last bucket."""


class Encoder:
    """``weights`` by the names of ``encoder_parameters``."""

    def __init__(self, config: EncoderConfig, weights: Mapping[str, torch.Tensor]) -> None:
        self._config = config
        self._weights = weights
        self._linears = {
            f"{index}.{part}": Linear(weights[f"{index}.{part}.weight"], weights[f"{index}.{part}.bias"])
            for index in range(config.num_layers)
            for part in ("qkv", "o", "up", "down")
        }
        self._activation = FUNCTIONS[config.activation]

    @property
    def linears(self) -> list[Linear]:
        """In the order of use."""
        return list(self._linears.values())

    def hidden(self, inputs: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """Each input's token ids → its last hidden states [tokens, hidden]."""
        lengths = [len(ids) for ids in inputs]
        x = self._embed(inputs)
        biases = {length: self._position_bias(length, x) for length in set(lengths)}
        for index in range(self._config.num_layers):
            x = self._norm(x + self._attention(index, x, lengths, biases), f"{index}.attention_norm")
            inner = self._activation(self._linears[f"{index}.up"](x))
            x = self._norm(x + self._linears[f"{index}.down"](inner), f"{index}.norm")
        return list(torch.split(x, lengths))

    def _embed(self, inputs: Sequence[Sequence[int]]) -> torch.Tensor:
        """[tokens of all inputs, hidden]."""
        weights, first = self._weights, self._config.first_position
        device = weights["word"].device
        ids = torch.tensor([token for input in inputs for token in input], device=device)
        positions = torch.cat([torch.arange(first, first + len(input), device=device) for input in inputs])
        x = weights["word"][ids]
        if self._config.family.token_types:
            x = x + weights["types"][0]
        return self._norm(x + weights["position"][positions], "norm")

    def _attention(
        self,
        index: int,
        x: torch.Tensor,
        lengths: Sequence[int],
        biases: Mapping[int, torch.Tensor | None],
    ) -> torch.Tensor:
        heads = self._config.num_heads
        mixed = self._linears[f"{index}.qkv"](x).view(len(x), 3, heads, -1)
        out = torch.empty_like(mixed[:, 0])
        start = 0
        for length in lengths:
            rows = slice(start, start + length)
            queries, keys, values = mixed[rows].permute(1, 2, 0, 3).unsqueeze(1)
            attended = scaled_dot_product_attention(queries, keys, values, attn_mask=biases[length])
            out[rows] = attended.squeeze(0).transpose(0, 1)
            start += length
        return self._linears[f"{index}.o"](out.flatten(1))

    def _position_bias(self, length: int, like: torch.Tensor) -> torch.Tensor | None:
        """[heads, length, length], added to the scores of all layers."""
        if not self._config.family.relative_positions:
            return None
        places = torch.arange(length, device=like.device)
        buckets = _buckets(places - places.unsqueeze(1), self._config.relative_buckets)
        return self._weights["relative"][buckets].permute(2, 0, 1)

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        return layer_norm(x, weight.shape, weight, bias, self._config.norm_eps)


def _buckets(distance: torch.Tensor, count: int) -> torch.Tensor:
    """Half of the buckets for what lies ahead; of each half, one a distance up to its middle, then
    logarithmically wider ones."""
    half, near = count // 2, count // 4
    far = distance.abs()
    scale = (half - near) / math.log(_FARTHEST / near)
    wide = near + (torch.log(far.float().clamp(min=1) / near) * scale).long()
    bucket = torch.where(far < near, far, wide.clamp(max=half - 1))
    return bucket + (distance > 0) * half
