"""RMS norm (Zhang and Sennrich, 2019), alone or of a sum that is kept, rounded where the decoder rounds."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from engine.kernels.rounding import NormWeight, weighed


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float, kind: NormWeight, out: torch.Tensor) -> None:
    """The norm of each row of x [rows, size], which may be a part of wider rows, → out, alike."""
    rows, size = x.shape
    _norm[(rows,)](
        x, x, x, weight, out, x.stride(0), 0, 0, out.stride(0), eps, 1.0,
        ADDED=False, SCALED=False, SIZE=size, TILE=triton.next_power_of_2(size), KIND=kind,
        num_warps=_warps(size), enable_fp_fusion=False,
    )  # fmt: skip


def add_rms_norm(
    x: torch.Tensor,
    mixed: torch.Tensor,
    scale: float,
    weight: torch.Tensor,
    eps: float,
    kind: NormWeight,
    total: torch.Tensor,
    out: torch.Tensor,
) -> None:
    """x + mixed * scale → total, which may be x itself, and its norm → out: all [rows, size]."""
    rows, size = x.shape
    _norm[(rows,)](
        x, mixed, total, weight, out, x.stride(0), mixed.stride(0), total.stride(0), out.stride(0),
        eps, scale,
        ADDED=True, SCALED=scale != 1, SIZE=size, TILE=triton.next_power_of_2(size), KIND=kind,
        num_warps=_warps(size), enable_fp_fusion=False,
    )  # fmt: skip


def _warps(size: int) -> int:
    """Eight numbers or more to a thread: the same for a size, so that its sums are."""
    return min(16, max(1, (1 << (size - 1).bit_length()) // 256))


@triton.jit
def _norm(
    x: tl.tensor,
    mixed: tl.tensor,
    total: tl.tensor,
    weight: tl.tensor,
    out: tl.tensor,
    x_row: tl.tensor,
    mixed_row: tl.tensor,
    total_row: tl.tensor,
    out_row: tl.tensor,
    eps: tl.float32,
    scale: tl.float32,
    ADDED: tl.constexpr,
    SCALED: tl.constexpr,
    SIZE: tl.constexpr,
    TILE: tl.constexpr,
    KIND: tl.constexpr,
) -> None:
    row, at = tl.program_id(0).to(tl.int64), tl.arange(0, TILE)
    inside = at < SIZE
    dtype = out.dtype.element_ty
    given = tl.load(x + row * x_row + at, mask=inside, other=0.0).to(tl.float32)
    if ADDED:
        added = tl.load(mixed + row * mixed_row + at, mask=inside, other=0.0).to(tl.float32)
        if SCALED:
            added = (added * scale).to(dtype).to(tl.float32)
        given = (given + added).to(dtype).to(tl.float32)
        tl.store(total + row * total_row + at, given.to(dtype), mask=inside)
    share = 1 / tl.sqrt_rn(tl.sum(given * given, 0) / SIZE + eps)
    scales = tl.load(weight + at, mask=inside, other=0.0)
    tl.store(out + row * out_row + at, weighed(given * share, scales, dtype, KIND), mask=inside)
