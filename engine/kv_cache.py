"""The KV cache: the memory of blocks, committed only as they are needed.

A block holds the keys and values of ``BLOCK_SIZE`` tokens for all layers; a few of them make up a chunk,
which is given back when none of them is in use. Where they lie is ``engine.kv_memory``'s, which block is
whose is told by ``engine.blocks``. Paged attention: Kwon et al., 2023.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

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
        self._least = 1
        """Blocks that there must be memory for when the model is awake."""
        self._give_up: Callable[[], bool] | None = None
        """Set while it is parked."""
        self.kept = 0
        """Bytes that stay through ``trim`` while it is parked."""
        self.pool = BlockPool(memory.num_blocks, caching=caching)

    @property
    def used_blocks(self) -> int:
        return self.pool.held_blocks

    @property
    def waits_for_siblings(self) -> bool:
        """Whether memory that it lacks is in use elsewhere and will come back."""
        siblings = [one for one in self._siblings if one is not self and one._give_up is None]
        return any(sibling.used_blocks for sibling in siblings)

    @property
    def committed(self) -> int:
        """Bytes of memory held."""
        return self.memory.committed_bytes

    @property
    def chunk_bytes(self) -> int:
        """Bytes of the smallest commit."""
        return self.memory.chunk_bytes

    @property
    def to_reserve(self) -> int:
        """Bytes that ``reserve`` would commit."""
        wanted = -(-self._least // self.memory.blocks_per_chunk)
        return max(0, wanted - len(self.memory.committed)) * self.memory.chunk_bytes

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
        chunks.update([0] if self.memory.anchored else [])
        while len(chunks) * self.memory.chunk_bytes > share and (block := self.pool.evict()) is not None:
            chunk = self.memory.chunk_of(block)
            chunks[chunk] -= 1
            if not chunks[chunk]:
                del chunks[chunk]
        self._release_unused(keep=0 if chunks and not self.memory.anchored else 1)

    def forget_prefixes(self) -> None:
        """Empty the prefix cache, and give its memory back."""
        self.pool.forget_prefixes()
        self._release_unused(keep=1)

    def reserve(self) -> None:
        """Hold a first chunk, which siblings leave to it, and what those that are parked need to go on one
        by one. Raises OutOfMemory, having taken nothing."""
        held, missing = self.memory.committed, self.to_reserve // self.memory.chunk_bytes
        free = sorted(set(range(len(held) + missing)) - held)
        try:
            for first, count in neighbours(free[:missing]):
                self.memory.commit(first, count)
        except OutOfMemory:
            self._release_unused(keep=0)
            raise

    def park(self, least: int, give_up: Callable[[], bool]) -> None:
        """Its sequences are suspended: what they hold stays through ``trim``, until a sibling lacks memory.
        ``least``: blocks that the largest of them needs. ``give_up``: one of them releases its blocks, False
        when none has any."""
        self._least, self._give_up = least, give_up
        self._release_unused(keep=1)

    def unpark(self) -> None:
        self._least, self._give_up, self.kept = 1, None, 0

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
        missing = self._needed(blocks) - self.memory.committed
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
                return None if self.memory.at_limit else self._take_from_parked()
            oldest = min(cached, key=lambda one: one.pool.idle_since)
            oldest.pool.evict()
            if oldest is self:
                return self

    def _take_from_parked(self) -> KVCache | None:
        """A sibling whose suspended sequences have given memory up."""
        for sibling in self._siblings:
            while sibling is not self and sibling._give_up and sibling._give_up():
                if sibling.trim():
                    return sibling
        return None

    def _release_unused(self, keep: int) -> int:
        """Give back the chunks of which no block is taken, but for the lowest ``keep``; bytes freed."""
        needed = self._needed(self.pool.taken)
        unused = [chunk for chunk in sorted(self.memory.committed)[keep:] if chunk not in needed]
        for first, count in neighbours(unused):
            self.memory.release(first, count)
        if self._give_up:
            self.kept = len(self._needed(self.pool.held)) * self.chunk_bytes
        return len(unused) * self.memory.chunk_bytes

    def _needed(self, blocks: Iterable[int]) -> set[int]:
        """The chunks that must have memory for these blocks to be used."""
        chunks = {self.memory.chunk_of(block) for block in blocks}
        return chunks | {0} if chunks and self.memory.anchored else chunks

    def _fault(self) -> str | None:
        """Taken blocks without memory behind them."""
        taken = {self.memory.chunk_of(block) for block in self.pool.taken}
        return None if taken <= self.memory.committed else "a cached block has no memory"

    def _committed_blocks(self) -> list[range]:
        """By chunk, lowest first."""
        return [self.memory.blocks_of(chunk) for chunk in sorted(self.memory.committed)]
