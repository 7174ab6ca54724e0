"""The KV cache: fixed-size blocks in an arena, handed to sequences, committed only as they are needed.

A block holds the keys and values of ``BLOCK_SIZE`` tokens for all layers, contiguously, so that a chunk of
the arena is a whole number of blocks and can be given back when none of them is in use.
Paged attention: Kwon et al., 2023.
"""

from __future__ import annotations

import heapq
import math

import torch

from engine.memory.arena import Arena
from engine.memory.cpu import round_up
from engine.types import OutOfMemory

BLOCK_SIZE = 16

_PAGE = 4096


class KVCache:
    """Owns the blocks. The lowest free block is handed out first, so that high chunks fall free."""

    def __init__(
        self,
        arena: Arena,
        shape: tuple[int, int, int],
        dtype: torch.dtype,
        blocks: int,
        siblings: list[KVCache] | None = None,
    ) -> None:
        """``shape``: layers, KV heads, head size. ``siblings``: the caches that share the device's memory,
        which this one joins; all live on its one worker thread."""
        layers, heads, size = shape
        elements = 2 * layers * BLOCK_SIZE * heads * size
        self.block_bytes = block_stride(elements * dtype.itemsize, arena.granularity)
        self.blocks_per_chunk = _blocks_per_chunk(self.block_bytes, arena.granularity)
        self._chunk_bytes = self.blocks_per_chunk * self.block_bytes
        self._arena = arena
        self._siblings = [] if siblings is None else siblings
        self._siblings.append(self)
        self.num_blocks = min(blocks, arena.size // self._chunk_bytes * self.blocks_per_chunk)
        used = arena.tensor[: self.num_blocks * self.block_bytes].view(dtype)
        rows = used.view(self.num_blocks, self.block_bytes // dtype.itemsize)[:, :elements]
        whole = rows.view(self.num_blocks, layers, 2, BLOCK_SIZE, heads, size)
        self.layers = [(whole[:, layer, 0], whole[:, layer, 1]) for layer in range(layers)]
        """Per layer keys and values, each [blocks, BLOCK_SIZE, KV heads, head size]."""
        self._free: list[int] = []
        self._in_use: dict[int, int] = {}
        """Blocks in use, by chunk; a chunk is committed while it has an entry."""

    @property
    def used_blocks(self) -> int:
        return sum(self._in_use.values())

    @property
    def waits_for_siblings(self) -> bool:
        """Whether memory that it lacks is in use elsewhere and will come back."""
        return any(sibling.used_blocks for sibling in self._siblings if sibling is not self)

    @property
    def committed(self) -> int:
        """Bytes of memory held."""
        return len(self._in_use) * self._chunk_bytes

    @property
    def chunk_bytes(self) -> int:
        """Bytes of the smallest commit."""
        return self._chunk_bytes

    def allocate(self, count: int) -> list[int]:
        """``count`` blocks. Raises OutOfMemory, having taken none."""
        while len(self._free) < count:
            if not self._commit_chunk():
                free = len(self._free) * self.block_bytes
                raise OutOfMemory(count * self.block_bytes, free)
        blocks = [heapq.heappop(self._free) for _ in range(count)]
        for block in blocks:
            self._in_use[block // self.blocks_per_chunk] += 1
        return blocks

    def free(self, blocks: list[int]) -> None:
        for block in blocks:
            self._in_use[block // self.blocks_per_chunk] -= 1
            heapq.heappush(self._free, block)

    def trim(self, keep: int = 0) -> int:
        """Give back the chunks of which no block is used, but for the lowest ``keep``; bytes freed."""
        idle = {chunk for chunk in sorted(self._in_use)[keep:] if self._in_use[chunk] == 0}
        for chunk in idle:
            del self._in_use[chunk]
            self._arena.release(chunk * self._chunk_bytes, self._chunk_bytes)
        self._free = [block for block in self._free if block // self.blocks_per_chunk not in idle]
        heapq.heapify(self._free)
        return len(idle) * self._chunk_bytes

    def _commit_chunk(self) -> bool:
        """The lowest chunk that is not committed; False when all are, OutOfMemory when RAM is short."""
        chunks = math.ceil(self.num_blocks / self.blocks_per_chunk)
        chunk = next((index for index in range(chunks) if index not in self._in_use), None)
        if chunk is None:
            return False
        try:
            self._commit(chunk)
        except OutOfMemory:
            if not sum(sibling.trim(keep=1) for sibling in self._siblings if sibling is not self):
                raise
            self._commit(chunk)
        self._in_use[chunk] = 0
        first = chunk * self.blocks_per_chunk
        for block in range(first, min(first + self.blocks_per_chunk, self.num_blocks)):
            heapq.heappush(self._free, block)
        return True

    def _commit(self, chunk: int) -> None:
        start = chunk * self._chunk_bytes
        with self._arena.commit(start, self._chunk_bytes):
            # A byte of every page, so that the memory is really taken while the claim on it lasts.
            self._arena.tensor[start : start + self._chunk_bytes : _PAGE].zero_()

    def reserve(self) -> None:
        """Hold a first chunk, which siblings leave to it. Raises OutOfMemory."""
        if not self._in_use:
            self._commit_chunk()

    def leave(self) -> None:
        """Give all back and share no more."""
        self.trim()
        self._siblings.remove(self)


def block_stride(nbytes: int, granularity: int) -> int:
    """A block's bytes with at most an eighth of padding, so that few blocks make up whole pages."""
    unit = min(granularity, 1 << max(6, (nbytes // 8).bit_length() - 1))
    return round_up(nbytes, unit)


def _blocks_per_chunk(stride: int, granularity: int) -> int:
    """The fewest blocks that fill a whole number of the arena's pages."""
    return granularity // math.gcd(stride, granularity)


def arena_bytes(block_nbytes: int, blocks: int, granularity: int) -> int:
    """What to reserve so that ``blocks`` of ``block_nbytes`` (unpadded) fit in whole chunks."""
    stride = block_stride(block_nbytes, granularity)
    return round_up(blocks * stride, stride * _blocks_per_chunk(stride, granularity))


def blocks_within(limit: int, block_nbytes: int, granularity: int) -> int:
    """How many blocks of ``block_nbytes`` (unpadded) never take more than ``limit`` in whole chunks; within
    the first chunk, which is the least that any cache takes, as many as fit."""
    stride = block_stride(block_nbytes, granularity)
    blocks, chunk = limit // stride, _blocks_per_chunk(stride, granularity)
    return blocks - blocks % chunk if blocks > chunk else blocks


def blocks_for(tokens: int) -> int:
    return -(-tokens // BLOCK_SIZE)
