"""Where the KV cache's blocks lie in their arena, and when memory is behind them.

Each layer's keys, and its values, have a range of their own in which the blocks follow one another, so that
attention reads a sequence whose blocks are neighbours as one strided view, without copying. A chunk is a few
neighbouring blocks: a piece of whole pages of every range, committed and released together.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from engine.blocks import BLOCK_SIZE
from engine.kv_sizes import KVSizes
from engine.memory.arena import ArenaFactory
from engine.memory.sizes import PAGE
from engine.types import OutOfMemory

_MOST_ADDRESSES = 2**40


class KVMemory:
    """``limit``: most bytes that it may ever hold; None: no limit of its own."""

    def __init__(
        self,
        make_arena: ArenaFactory,
        shape: tuple[int, int, int],
        dtype: torch.dtype,
        blocks: int,
        limit: int | None = None,
        page: int = PAGE,
    ) -> None:
        """``shape``: layers, KV heads, head size. ``blocks``: address space for so many, or for what fits
        into a terabyte. ``page``: the smallest piece of memory that the device has."""
        layers, heads, size = shape
        sizes = KVSizes(*shape, dtype.itemsize, page)
        self._ranges = sizes.ranges
        self.block_bytes = sizes.block
        """Of all layers."""
        self.blocks_per_chunk = sizes.blocks_per_chunk
        self.chunk_bytes = sizes.chunk
        """The smallest commit."""
        chunks = min(-(-blocks // self.blocks_per_chunk), max(1, _MOST_ADDRESSES // self.chunk_bytes))
        self.num_blocks = min(blocks, chunks * self.blocks_per_chunk)
        self._most_chunks = chunks if limit is None else min(chunks, max(1, limit // self.chunk_bytes))
        self._piece = self.blocks_per_chunk * sizes.range_block
        self._stride = chunks * self._piece
        # As few calls of the driver as can be: each takes its time, however little memory it is for.
        self.arena = make_arena(self._ranges * self._stride, self._piece if sizes.together else page)
        used = self.arena.tensor[: self._ranges * self._stride].view(dtype)
        count = chunks * self.blocks_per_chunk
        if sizes.together:
            whole = used.view(count, -1)[:, : 2 * layers * BLOCK_SIZE * heads * size]
            parts = whole.view(count, layers, 2, BLOCK_SIZE, heads, size).permute(1, 2, 0, 3, 4, 5)
        else:
            parts = used.view(layers, 2, count, BLOCK_SIZE, heads, size)
        self.layers = [(keys, values) for keys, values in parts]
        """Per layer keys and values, [blocks, BLOCK_SIZE, KV heads, head size]; a block is contiguous."""
        self.anchored = sizes.together
        """Whether the first chunk has memory as long as any other has: kernels are told where a layer's
        blocks begin, and Triton refuses an address that has nothing behind it."""
        self.committed: set[int] = set()
        """Chunks that have memory."""

    @property
    def committed_bytes(self) -> int:
        return len(self.committed) * self.chunk_bytes

    @property
    def at_limit(self) -> bool:
        """Whether it holds all that it ever may."""
        return len(self.committed) >= self._most_chunks

    def chunk_of(self, block: int) -> int:
        return block // self.blocks_per_chunk

    def blocks_of(self, chunk: int) -> range:
        first = chunk * self.blocks_per_chunk
        return range(first, min(first + self.blocks_per_chunk, self.num_blocks))

    def commit(self, first: int, count: int = 1) -> None:
        """Memory behind ``count`` chunks from ``first`` on. Raises OutOfMemory, having taken nothing."""
        if len(self.committed) + count > self._most_chunks:
            raise OutOfMemory(count * self.chunk_bytes, 0)
        pieces = self._pieces(first, count)
        with self.arena.commit_all(pieces):
            # At once, so that the memory is really taken while the claim on it lasts.
            for piece in pieces:
                self.arena.populate(*piece)
        self.committed.update(range(first, first + count))

    def release(self, first: int, count: int = 1) -> None:
        self.committed.difference_update(range(first, first + count))
        for start, length in self._pieces(first, count):
            self.arena.release(start, length)

    def _pieces(self, first: int, count: int) -> list[tuple[int, int]]:
        """(offset, bytes) in the arena, one of each range."""
        start = first * self._piece
        return [(start + index * self._stride, count * self._piece) for index in range(self._ranges)]


def neighbours(chunks: Iterable[int]) -> list[tuple[int, int]]:
    """As (first, count) of those that follow one another."""
    found: list[tuple[int, int]] = []
    for chunk in sorted(chunks):
        if found and chunk == sum(found[-1]):
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((chunk, 1))
    return found
