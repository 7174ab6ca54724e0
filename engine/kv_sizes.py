"""How large the KV cache's blocks and chunks are. No torch in here: an estimate needs none."""

from __future__ import annotations

import math
from dataclasses import dataclass

from engine.blocks import BLOCK_SIZE
from engine.memory.sizes import PAGE, round_up

_LEAST_CHUNK = 2**20
_PARTS = 64
"""A block that lies together takes whole parts of a page, of so many: a chunk then has no more blocks."""


@dataclass(frozen=True, slots=True)
class KVSizes:
    """In bytes, but for ``ranges`` and ``blocks_per_chunk``. ``page``: the smallest piece of memory that the
    device has."""

    layers: int
    heads: int
    head_dim: int
    item_size: int
    page: int = PAGE

    @property
    def together(self) -> bool:
        """Whether a block's keys and values of all layers lie together: where pages are large, since a chunk
        would else take one for each of them."""
        return self.page > PAGE

    @property
    def ranges(self) -> int:
        """Of addresses: one, or those of keys and values of each layer, in which blocks are neighbours."""
        return 1 if self.together else 2 * self.layers

    @property
    def range_block(self) -> int:
        """A block's part of one range."""
        one = BLOCK_SIZE * self.heads * self.head_dim * self.item_size
        return round_up(2 * self.layers * one, self.page // _PARTS) if self.together else one

    @property
    def block(self) -> int:
        """Of all layers."""
        return self.ranges * self.range_block

    @property
    def blocks_per_chunk(self) -> int:
        """As many as make whole pages of every range."""
        whole_pages = self.page // math.gcd(self.range_block, self.page)
        return whole_pages * -(-_LEAST_CHUNK // (whole_pages * self.block))

    @property
    def chunk(self) -> int:
        """The smallest commit."""
        return self.blocks_per_chunk * self.block
