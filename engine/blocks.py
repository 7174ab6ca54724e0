"""Which block is whose: held by sequences, cached for its tokens, promised to a sequence that grows, or free.

Pure bookkeeping over block ids; the memory behind them is ``engine.kv_cache``'s. Ids are address space and
plentiful, so sequences are spread out and each gets consecutive ones, which attention reads without copying.
A block counts its holders. When the last one leaves, a block whose tokens are known stays cached until its
room is needed: the least recently used goes first, and always before the blocks that it follows, since who
holds a block holds all before it.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import Final

from engine.free_ids import FreeIds
from engine.prefix_cache import ROOT, PrefixCache, Tokens

BLOCK_SIZE: Final = 16
"""Tokens."""


class BlockPool:
    def __init__(self, size: int, *, caching: bool = True) -> None:
        self.size = size
        self._caching = caching
        self._free = FreeIds(size)
        self._promised: dict[int, int] = {}
        """By the last block of a sequence that grows: the id up to which those behind it are kept for it."""
        self._holders: dict[int, int] = {}
        """How many hold a block; 0: it is cached."""
        self._idle: OrderedDict[int, float] = OrderedDict()
        """Cached blocks and since when nobody holds them, oldest first."""
        self._prefixes = PrefixCache()

    @property
    def taken(self) -> Collection[int]:
        """Held or cached."""
        return self._holders.keys()

    @property
    def held(self) -> Collection[int]:
        return self._holders.keys() - self._idle.keys()

    @property
    def held_blocks(self) -> int:
        return len(self._holders) - len(self._idle)

    @property
    def cached_blocks(self) -> int:
        return len(self._idle)

    @property
    def idle_since(self) -> float:
        """When the next block to be evicted was last held, by ``time.monotonic()``."""
        return next(iter(self._idle.values()), math.inf)

    # New blocks

    def find(self, count: int, after: int | None, room: int) -> range | list[int] | None:
        """``count`` free ids: those behind ``after``, else the lowest place with ``room`` for so many in a
        row, else wherever they are; None when there are not so many."""
        if after is not None:
            first = after + 1
            reach = self._free.from_id(self._promised.get(after, first)).stop
            if reach - first >= count:
                return range(first, first + count)
        for _ in range(2):
            place = self._free.with_room(max(count, room))
            if len(place) >= count:
                return place[:count]
            self._break_promises()
        found = [block for stretch in self._free for block in stretch[:count]][:count]
        return found if len(found) == count else None

    def find_among(self, candidates: Sequence[range], count: int) -> list[int]:
        """The first ``count`` of these that are free, or fewer; promises are broken."""
        self._break_promises()
        found: list[int] = []
        for stretch in candidates:
            found += [block for block in stretch if block not in self._holders]
            if len(found) >= count:
                break
        return found[:count]

    def take(self, blocks: Sequence[int], after: int | None, room: int) -> None:
        """Hold what ``find`` found, and keep free behind the last as much of ``room`` as there is."""
        if after is not None:
            self._release_promise(after)
        for block in blocks:
            self._free.take(block, block + 1)
            self._holders[block] = 1
        if blocks and room > len(blocks):
            behind = self._free.from_id(blocks[-1] + 1)[: room - len(blocks)]
            if behind:
                self._free.take(behind.start, behind.stop)
                self._promised[blocks[-1]] = behind.stop

    def hold(self, blocks: Sequence[int]) -> None:
        """One more holder for each."""
        for block in blocks:
            self._holders[block] += 1
            self._idle.pop(block, None)

    def release(self, blocks: Sequence[int]) -> None:
        """One holder less for each block of a sequence."""
        now = time.monotonic()
        for block in reversed(blocks):
            self._holders[block] -= 1
            if self._holders[block] == 0:
                self._release_promise(block)
                if block in self._prefixes:
                    self._idle[block] = now
                else:
                    self._forget(block)

    # Blocks that are known by their tokens

    def match(self, token_ids: Sequence[int], variant: int = 0) -> list[int]:
        """The blocks that hold the beginning of these, as far as there are any. ``variant``: of the prompt,
        see ``RopeConfig.prompt_variant``."""
        found: list[int] = []
        for index in range(len(token_ids) // BLOCK_SIZE):
            block = self._prefixes.next(found[-1] if found else ROOT - variant, _tokens(token_ids, index))
            if block is None:
                break
            found.append(block)
        return found

    def publish(
        self, blocks: Sequence[int], token_ids: Sequence[int], indices: range, variant: int = 0
    ) -> None:
        """Make a sequence's full and computed blocks, those at ``indices``, known by their tokens."""
        if self._caching:
            for index in indices:
                before = blocks[index - 1] if index else ROOT - variant
                self._prefixes.add(blocks[index], before, _tokens(token_ids, index))

    def evict(self) -> int | None:
        """Free the cached block that was not used for the longest; None when there is none."""
        if not self._idle:
            return None
        block, _ = self._idle.popitem(last=False)
        self._prefixes.remove(block)
        self._forget(block)
        return block

    def forget_prefixes(self) -> None:
        """No block is known by its tokens any more; those that are held stay with their holders."""
        self._prefixes.clear()
        for block in self._idle:
            self._forget(block)
        self._idle.clear()

    def fault(self) -> str | None:
        """What is wrong while nobody holds a block; None when nothing is."""
        if any(self._holders.values()) or self._promised:
            return f"{self.held_blocks} blocks are held by nobody that runs"
        if self._idle.keys() != self._holders.keys() or len(self._free) + len(self._idle) != self.size:
            return f"{self.size} blocks are {len(self._free)} free and {len(self._idle)} cached ones"
        if any(block not in self._prefixes or self._free.from_id(block) for block in self._idle):
            return "a cached block is free, or not known by its tokens"
        if len(self._prefixes) != len(self._idle):
            return "a block is known by its tokens that is not cached"
        return self._prefixes.fault()

    def _forget(self, block: int) -> None:
        del self._holders[block]
        self._free.give(block, block + 1)

    def _release_promise(self, block: int) -> None:
        stop = self._promised.pop(block, None)
        if stop is not None:
            self._free.give(block + 1, stop)

    def _break_promises(self) -> None:
        for block in list(self._promised):
            self._release_promise(block)


def _tokens(token_ids: Sequence[int], index: int) -> Tokens:
    return tuple(token_ids[index * BLOCK_SIZE : (index + 1) * BLOCK_SIZE])


def blocks_for(tokens: int) -> int:
    return -(-tokens // BLOCK_SIZE)
