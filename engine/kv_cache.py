"""The KV cache: the memory of blocks, committed only as they are needed.

A block holds the keys and values of ``BLOCK_SIZE`` tokens for all layers; a few of them make up a chunk,
which is given back when none of them is in use. Where they lie is ``engine.kv_memory``'s, which block is
whose is told by ``engine.blocks``. Paged attention: Kwon et al., 2023.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

import torch

from engine.blocks import BlockPool
from engine.kv_memory import KVMemory, neighbours
from engine.types import OutOfMemory

log = logging.getLogger("dormouse.engine")

KVLayers = Sequence[tuple[torch.Tensor, torch.Tensor]]


class KVCache:
    """Blocks with memory behind them. When memory is short, the cached block that was not used for the
    longest gives way, whichever of the caches on the device it is in."""

    def __init__(
        self,
        memory: KVMemory,
        siblings: list[KVCache] | None = None,
        *,
        caching: bool = True,
        quiet_limit: int = 0,
    ) -> None:
        """``siblings``: the caches that share the device's memory, which this one joins; all live on its one
        worker thread. ``caching``: keep blocks that nobody holds for prompts that begin alike.
        ``quiet_limit``: most bytes that all caches of the device together keep so while their models are
        quiet."""
        self.memory = memory
        self.layers: KVLayers = memory.layers
        """Per layer keys and values, each [blocks, BLOCK_SIZE, KV heads, head size]."""
        self._siblings = [] if siblings is None else siblings
        self._siblings.append(self)
        self._quiet_limit = quiet_limit
        self._caching = caching
        self.pool = BlockPool(memory.num_blocks, caching=caching)

    @property
    def used_blocks(self) -> int:
        return self.pool.held_blocks

    @property
    def waits_for_siblings(self) -> bool:
        """Whether memory that it lacks is in use elsewhere and will come back."""
        return any(sibling.used_blocks for sibling in self._siblings if sibling is not self)

    @property
    def committed(self) -> int:
        """Bytes of memory held."""
        return self.memory.committed_bytes

    @property
    def chunk_bytes(self) -> int:
        """Bytes of the smallest commit."""
        return self.memory.chunk_bytes

    def allocate(self, count: int, *, after: int | None = None, room: int = 0) -> Sequence[int]:
        """``count`` blocks for one holder, if possible those behind the block ``after``, else where there is
        room for ``room`` in a row. Raises OutOfMemory, having taken none."""
        while True:
            blocks = self.pool.find(count, after, room)
            if blocks is None:
                if self.pool.evict() is None:
                    raise OutOfMemory(count * self.memory.block_bytes, self._spare * self.memory.block_bytes)
                continue
            try:
                self._commit_for(blocks)
                break
            except OutOfMemory:
                giver: KVCache | None = self
                while self._spare < count and giver is self:
                    giver = self._reclaim()
                if giver is self:
                    blocks = self.pool.find_among(self._committed_blocks(), count)
                    break
                if giver is None:
                    raise
        self.pool.take(blocks, after, room)
        return blocks

    def trim(self, keep: int = 0) -> int:
        """Give back all that no sequence holds, cached blocks too, but for the lowest ``keep`` chunks; bytes
        freed."""
        while self.pool.evict() is not None:
            pass
        return self._release_unused(keep)

    def settle(self) -> None:
        """Nothing runs. Keep the cached blocks that were used last, up to this cache's part of
        ``quiet_limit`` and until anybody needs their memory, else a first chunk; give back the rest."""
        if fault := self.pool.fault() or self._fault():
            log.error("the KV cache is emptied, for its accounts do not add up: %s", fault)
            self.pool = BlockPool(self.memory.num_blocks, caching=self._caching)
        share = self._quiet_limit // max(1, sum(bool(sibling.committed) for sibling in self._siblings))
        chunks = Counter(self.memory.chunk_of(block) for block in self.pool.taken)
        while len(chunks) * self.memory.chunk_bytes > share and (block := self.pool.evict()) is not None:
            chunk = self.memory.chunk_of(block)
            chunks[chunk] -= 1
            if not chunks[chunk]:
                del chunks[chunk]
        self._release_unused(keep=0 if chunks else 1)

    def forget_prefixes(self) -> None:
        """Empty the prefix cache, and give its memory back."""
        self.pool.forget_prefixes()
        self._release_unused(keep=1)

    def reserve(self) -> None:
        """Hold a first chunk, which siblings leave to it. Raises OutOfMemory."""
        if not self.memory.committed:
            self._commit_for(range(1))

    def leave(self) -> None:
        """Give all back and share no more."""
        self.trim()
        self._siblings.remove(self)

    @property
    def _spare(self) -> int:
        """Blocks that have memory and are free."""
        return sum(map(len, self._committed_blocks())) - len(self.pool.taken)

    def _commit_for(self, blocks: Sequence[int]) -> None:
        """Memory behind these blocks. Raises OutOfMemory, keeping what it has got until then."""
        missing = {self.memory.chunk_of(block) for block in blocks} - self.memory.committed
        for first, count in neighbours(missing):
            try:
                self.memory.commit(first, count)
            except OutOfMemory:
                for chunk in range(first, first + count):
                    self.memory.commit(chunk)

    def _reclaim(self) -> KVCache | None:
        """Who gave something up: a sibling memory, or itself a block; None when all is in use."""
        # A sibling keeps its first chunk, so what is cached in there would be lost for nothing.
        able = [one for one in self._siblings if one is not self and len(one.memory.committed) > 1]
        if self.memory.at_limit:
            able = []
        while True:
            for sibling in able:
                if sibling._release_unused(keep=1):
                    return sibling
            cached = [one for one in (self, *able) if one.pool.cached_blocks]
            if not cached:
                return None
            oldest = min(cached, key=lambda one: one.pool.idle_since)
            oldest.pool.evict()
            if oldest is self:
                return self

    def _release_unused(self, keep: int) -> int:
        """Give back the chunks of which no block is taken, but for the lowest ``keep``; bytes freed."""
        taken = {self.memory.chunk_of(block) for block in self.pool.taken}
        unused = [chunk for chunk in sorted(self.memory.committed)[keep:] if chunk not in taken]
        for first, count in neighbours(unused):
            self.memory.release(first, count)
        return len(unused) * self.memory.chunk_bytes

    def _fault(self) -> str | None:
        """Taken blocks without memory behind them."""
        taken = {self.memory.chunk_of(block) for block in self.pool.taken}
        return None if taken <= self.memory.committed else "a cached block has no memory"

    def _committed_blocks(self) -> list[range]:
        """By chunk, lowest first."""
        return [self.memory.blocks_of(chunk) for chunk in sorted(self.memory.committed)]
