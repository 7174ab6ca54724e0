"""Linear layers over the weights' arena, which multiply in the fastest way that this CPU has; on other
devices it is torch's.

On a CPU a row gets the same numbers to the bit in any company of its kind, and before and after its matrix
was packed: what is fast for the rows of prompts sums in another order than what is fast for a few generated
ones, so the kind decides, never their number.
"""

from __future__ import annotations

import logging
from functools import cache

import torch
from torch.nn.functional import linear, pad

from engine import packing
from engine.memory.sizes import round_up
from engine.memory.system import system
from engine.types import OutOfMemory
from engine.widening import can_widen, widened_linear, widening_pays

_LONGEST_LONE = 1024
"""Columns to which a lone row's sums were found to be those of a row among others, where AVX-512 adds."""
_PROMPT_TILE, _ANSWER_TILE = 64, 16
"""Rows that AMX multiplies at a time. How it splits a row's sum depends on how many rows come along, so they
are always as many. Up to 16 cost what one costs."""

log = logging.getLogger("dormouse.engine")


class Linear:
    """x [rows, in] → [rows, out] by a weight [out, in], a view of the weights' arena, and maybe a bias."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        self.weight = weight
        self.bias = bias
        self.packed = False
        self._refused = False
        """Packing it has failed, and would again."""
        self._blocks: torch.Tensor | None = None
        """The weight's memory as oneDNN's opaque tensor, once it was packed."""
        self._on_cpu = weight.device.type == "cpu"
        self._widened = can_widen(weight) and widening_pays()

    def __call__(self, x: torch.Tensor, *, generated: bool = False) -> torch.Tensor:
        """``generated``: the rows are tokens of answers, else of prompts."""
        if not self._on_cpu:
            return linear(x, self.weight, self.bias)
        if self._widened and not generated:
            return widened_linear(x, self.weight, self.bias, packed=self.packed)
        if self.weight.dtype == torch.bfloat16 and has_amx():
            return self._by_tiles(x, _ANSWER_TILE if generated else _PROMPT_TILE)
        rows = len(x)
        padded = _padded(max(rows, self._least(generated)))
        return self._multiply(x if padded == rows else pad(x, (0, 0, 0, padded - rows)))[:rows]

    def _by_tiles(self, x: torch.Tensor, tile: int) -> torch.Tensor:
        rows = len(x)
        products = [self._multiply(part) for part in torch.split(pad(x, (0, 0, 0, -rows % tile)), tile)]
        return (products[0] if len(products) == 1 else torch.cat(products))[:rows]

    def _least(self, generated: bool) -> int:
        """Rows from which on the sums of one are the same, whatever their number, as far as that is cheap."""
        if self.weight.dtype == torch.float32:
            return 1 if generated else 16
        return 2 if self.weight.shape[1] > _LONGEST_LONE or self.weight.dtype == torch.float16 else 1

    def _multiply(self, x: torch.Tensor) -> torch.Tensor:
        blocks = self._blocks if self.packed else None
        if blocks is None:
            return linear(x, self.weight, self.bias)
        return packing.multiply(x, blocks, self.bias)

    def rows(self, ids: torch.Tensor) -> torch.Tensor:
        """Rows of the weight, [ids, in]: an embedding that is tied to a head."""
        return packing.packed_rows(self.weight, ids) if self.packed else self.weight[ids]

    @property
    def packable(self) -> bool:
        """Whether packing it is possible and not done."""
        if self.packed or self._refused or self.weight.dtype != torch.bfloat16:
            return False
        if not self._on_cpu or not packing.can_pack():
            return False
        rows, columns = self.weight.shape
        return rows % packing.block_rows() == 0 and columns % packing.COLUMNS == 0

    def pack(self) -> bool:
        """Lay the weight out in blocks, where that takes no other bytes and keeps the rows readable. False
        when there is no memory to do it now."""
        try:
            with system.claim(self.weight.nbytes):
                self._blocks = packing.pack(self.weight, self._blocks)
            self.packed = self._blocks is not None
        except OutOfMemory:
            return False
        except RuntimeError:
            log.exception("a matrix stays as it is")
        self._refused = not self.packed
        return True

    def emptied(self) -> None:
        """The weight's memory has been given back; what will be read into it is plain."""
        self.packed = False


@cache
def has_amx() -> bool:
    """Whether bfloat16 products are AMX's here."""
    return bool(torch.cpu._is_amx_tile_supported())


def _padded(rows: int) -> int:
    """Rows that are multiplied for so many: few numbers, since each new one costs time and memory."""
    return rows if rows <= 16 else round_up(rows, 4 if rows <= 64 else 8)
