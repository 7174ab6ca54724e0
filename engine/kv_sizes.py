"""How large the KV cache's blocks and chunks are. No torch in here: an estimate needs none."""

from __future__ import annotations

import math
from dataclasses import dataclass

from engine.blocks import BLOCK_SIZE
from engine.memory.sizes import PAGE

_LEAST_CHUNK = 2**20


@dataclass(frozen=True, slots=True)
class KVSizes:
    """In bytes, but for ``blocks_per_chunk``. ``page``: the smallest piece of memory that the device has."""

    layers: int
    heads: int
    head_dim: int
    item_size: int
    page: int = PAGE

    @property
    def ranges(self) -> int:
        """Keys and values of each layer lie apart."""
        return 2 * self.layers

    @property
    def range_block(self) -> int:
        """A block's part of one range."""
        return BLOCK_SIZE * self.heads * self.head_dim * self.item_size

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
