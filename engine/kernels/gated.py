"""The middle of a gated MLP: the activation of the gate, times what goes up."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

_TILE = 1024
_SQRT_HALF = tl.constexpr(0.7071067811865476)
_SQRT_2_BY_PI = tl.constexpr(0.7978845608028654)
_FORMULAS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "erf",
    "gelu_new": "tanh",
    "gelu_fast": "tanh",
    "gelu_pytorch_tanh": "tanh",
    "relu": "relu",
}
"""Of ``engine.models.activations.FUNCTIONS``."""


def gated(gate_up: torch.Tensor, activation: str, out: torch.Tensor) -> None:
    """gate_up [rows, 2 x size], gates first → out [rows, size]. ``activation`` by its name in config.json."""
    rows, size = out.shape
    _gated[(rows, triton.cdiv(size, _TILE))](
        gate_up, out, gate_up.stride(0), out.stride(0), size,
        TILE=_TILE, FORMULA=_FORMULAS[activation], num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip


@triton.jit
def _gated(
    gate_up: tl.tensor,
    out: tl.tensor,
    row_stride: tl.tensor,
    out_row: tl.tensor,
    size: tl.tensor,
    TILE: tl.constexpr,
    FORMULA: tl.constexpr,
) -> None:
    row, at = tl.program_id(0).to(tl.int64), tl.program_id(1) * TILE + tl.arange(0, TILE)
    inside = at < size
    dtype = out.dtype.element_ty
    gate = tl.load(gate_up + row * row_stride + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * row_stride + size + at, mask=inside, other=0.0).to(tl.float32)
    if FORMULA == "silu":
        active = gate * tl.sigmoid(gate)
    elif FORMULA == "erf":
        active = 0.5 * gate * (1 + tl.erf(gate * _SQRT_HALF))
    elif FORMULA == "tanh":
        bent = _SQRT_2_BY_PI * (gate + 0.044715 * gate * gate * gate)
        # 0.5 * (1 + tanh(bent))
        active = gate * tl.sigmoid(2 * bent)
    else:
        active = tl.maximum(gate, 0)
    active = active.to(dtype).to(tl.float32)
    tl.store(out + row * out_row + at, (active * up).to(dtype), mask=inside)
