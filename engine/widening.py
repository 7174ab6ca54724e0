"""Products of a bfloat16 matrix and many rows, computed in float32.

A CPU without AMX multiplies float32 about twice as fast as bfloat16 (300 against 160 GFLOP/s were measured on
AVX-512 with BF16). So the matrix is widened by panels, into a buffer that stays in the cache: a bfloat16 is
the upper half of a float32, and two neighbours are one word that a shift and a mask take apart. All even
columns then come before all odd ones, packed or plain, so that both give the same sums.

From ``_LEAST_ROWS`` rows on a row's sums do not depend on how many there are.
"""

from __future__ import annotations

from functools import cache

import torch
from torch.nn.functional import pad

from engine import packing

_PANEL = 64
"""Rows of the matrix that are multiplied at a time: those of a packed block."""
_LEAST_ROWS = 16
_BUFFER = 2 * 2**20
"""Bytes of widened panels at a time, about what a core's own cache holds."""
_UPPER = -(2**16)
"""The mask of a word's upper half."""


@cache
def widening_pays() -> bool:
    """Whether float32 products are the faster ones on this CPU."""
    return (
        torch.has_mkl
        and "AVX" in torch.backends.cpu.get_cpu_capability()
        and not torch.cpu._is_amx_tile_supported()
        and packing.block_rows() in (0, _PANEL)
    )


def can_widen(matrix: torch.Tensor) -> bool:
    """Whether ``widened_linear`` takes it."""
    rows, columns = matrix.shape
    fits = rows % _PANEL == 0 and columns % 2 == 0 and matrix.dtype == torch.bfloat16
    return fits and matrix.device.type == "cpu" and matrix.is_contiguous()


def widened_linear(
    x: torch.Tensor, matrix: torch.Tensor, bias: torch.Tensor | None, *, packed: bool
) -> torch.Tensor:
    """x [rows, in] by [out, in], packed or plain, and maybe a bias, all bfloat16 → [rows, out], bfloat16."""
    rows, (outputs, inputs) = len(x), matrix.shape
    x = _widened(pad(x, (0, 0, 0, max(0, _LEAST_ROWS - rows))).contiguous().view(torch.int32), dim=1)
    side, half = (x, (inputs // 2, _PANEL)) if packed else (x.T.contiguous(), (_PANEL, inputs // 2))
    words = matrix.view(torch.int32).view(-1, *half)
    out = torch.empty(rows, len(words), _PANEL, dtype=matrix.dtype)
    count = max(1, _BUFFER // (4 * _PANEL * inputs))
    for first in range(0, len(words), count):
        panels = _widened(words[first : first + count], dim=1 if packed else 2)
        sides = side.expand(len(panels), -1, -1)
        product = torch.bmm(sides, panels) if packed else torch.bmm(panels, sides).mT
        if bias is not None:
            product += bias.view(-1, 1, _PANEL)[first : first + count]
        out[:, first : first + count] = product[:, :rows].transpose(0, 1)
    return out.view(rows, outputs)


def _widened(words: torch.Tensor, dim: int) -> torch.Tensor:
    """Pairs of bfloat16 as int32 → float32, twice as many along ``dim``: the first of all pairs,
    then the second ones."""
    shape = list(words.shape)
    shape[dim] *= 2
    wide = torch.empty(shape, dtype=torch.int32)
    first, second = wide.chunk(2, dim)
    torch.bitwise_left_shift(words, 16, out=first)
    torch.bitwise_and(words, _UPPER, out=second)
    return wide.view(torch.float32)
