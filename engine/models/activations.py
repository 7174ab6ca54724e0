"""Activations by the names that config.json has for them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch.nn.functional import gelu, relu, silu

_gelu_by_tanh = functools.partial(gelu, approximate="tanh")

FUNCTIONS: Final[Mapping[str, Callable[[torch.Tensor], torch.Tensor]]] = {
    "silu": silu,
    "swish": silu,
    "gelu": gelu,
    "gelu_new": _gelu_by_tanh,
    "gelu_fast": _gelu_by_tanh,
    "gelu_pytorch_tanh": _gelu_by_tanh,
    "relu": relu,
}
"""Of ``engine.models.encoder_config.ACTIVATIONS``."""
