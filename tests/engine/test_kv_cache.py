"""Memory behind blocks: only behind those in use or cached, within every limit, and with what was written."""

from __future__ import annotations

import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.blocks import BLOCK_SIZE
from engine.kv_cache import KVCache
from engine.kv_memory import KVMemory
from engine.memory.arena import Arena
from engine.memory.budget import Budget
from engine.memory.cpu import CpuArena
from engine.memory.sizes import HUGE_PAGE, PAGE
from engine.types import OutOfMemory

SMALL = (2, 2, 32)
"""Layers, heads and head size: many blocks a chunk."""
LARGE = (32, 8, 256)
"""A few blocks a chunk."""


def make_cache(
    shape: tuple[int, int, int] = LARGE,
    blocks: int = 1000,
    *,
    budget: Budget | None = None,
    siblings: list[KVCache] | None = None,
    limit: int | None = None,
    quiet_limit: int = 0,
    page: int = PAGE,
) -> KVCache:
    def make_arena(size: int, granularity: int | None = None, /) -> Arena:
        return CpuArena(size, budget=budget, granularity=granularity)

    memory = KVMemory(make_arena, shape, torch.bfloat16, blocks, limit, page)
    return KVCache(memory, siblings, quiet_limit=quiet_limit)


def remember(cache: KVCache, tokens: list[int]) -> list[int]:
    """The blocks of a sequence that came, was computed and went."""
    blocks = list(cache.allocate(len(tokens) // BLOCK_SIZE))
    cache.pool.publish(blocks, tokens, range(len(blocks)))
    cache.pool.release(blocks)
    return blocks


class TwoCaches(RuleBasedStateMachine):
    """Two models on one device whose memory is short, each with sequences that come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.budget = Budget()
        caches: list[KVCache] = []
        for _ in range(2):
            make_cache(SMALL, 2000, budget=self.budget, siblings=caches, quiet_limit=2**21)
        self.caches = caches
        self.held: list[tuple[KVCache, list[int], list[int]]] = []
        """Cache, blocks and tokens."""
        self.budget.limit = 6 * caches[0].chunk_bytes
        self.count = 0

    @rule(which=st.integers(0, 1), chunks=st.floats(0, 3), room=st.integers(0, 200))
    def allocate(self, which: int, chunks: float, room: int) -> None:
        cache = self.caches[which]
        count = int(chunks * cache.memory.blocks_per_chunk)
        in_use = sum(one.memory.chunk_bytes * len(self.chunks_in_use(one)) for one in self.caches)
        try:
            blocks = list(cache.allocate(count, room=room))
        except OutOfMemory as error:
            assert error.needed > error.available
            assert in_use > 2 * cache.chunk_bytes or count > 4 * cache.memory.blocks_per_chunk
            return
        taken = {block for one, others, _ in self.held if one is cache for block in others}
        assert len(set(blocks)) == count and taken.isdisjoint(blocks)
        tokens = [self.count] * (count * BLOCK_SIZE)
        self.count += 1
        for keys, values in cache.layers:
            keys[blocks] = values[blocks] = float(self.count % 100)
        cache.pool.publish(blocks, tokens, range(count))
        self.held.append((cache, blocks, tokens))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        cache, blocks, _ = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        cache.pool.release(blocks)

    @rule(which=st.integers(0, 1))
    def trim(self, which: int) -> None:
        cache = self.caches[which]
        before = cache.committed
        assert cache.trim() == before - cache.committed
        assert len(cache.memory.committed) == len(self.chunks_in_use(cache))

    @rule(which=st.integers(0, 1))
    def settle(self, which: int) -> None:
        cache = self.caches[which]
        if not cache.used_blocks:
            cache.settle()
            assert cache.committed <= max(cache.chunk_bytes, 2**21)

    def chunks_in_use(self, cache: KVCache) -> set[int]:
        return {
            cache.memory.chunk_of(block) for one, blocks, _ in self.held if one is cache for block in blocks
        }

    @invariant()
    def memory_is_counted(self) -> None:
        assert self.budget.used == sum(cache.committed for cache in self.caches)
        assert self.budget.used == sum(cache.memory.arena.committed for cache in self.caches)
        for cache in self.caches:
            assert cache.used_blocks == sum(len(b) for one, b, _ in self.held if one is cache)
            assert {cache.memory.chunk_of(block) for block in cache.pool.taken} <= cache.memory.committed

    @invariant()
    def blocks_hold_what_was_written(self) -> None:
        for cache, blocks, tokens in self.held:
            if blocks:
                written = cache.layers[1][1][[blocks[0], blocks[-1]]]
                assert (written == float((tokens[0] + 1) % 100)).all()

    def teardown(self) -> None:
        for cache in list(self.caches):
            cache.leave()
            cache.memory.arena.close()


TestTwoCaches = TwoCaches.TestCase
TestTwoCaches.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)


def test_a_new_sequence_takes_a_cached_blocks_memory_and_the_oldest_first() -> None:
    cache = make_cache(limit=make_cache().chunk_bytes * 4)
    chunk = cache.memory.blocks_per_chunk
    old, new = [1] * (2 * chunk * BLOCK_SIZE), [2] * (2 * chunk * BLOCK_SIZE)
    remember(cache, old)
    remember(cache, new)
    blocks = cache.allocate(chunk + 1)
    assert len(cache.memory.committed) == 4
    assert len(cache.pool.match(old)) == chunk - 1
    assert len(cache.pool.match(new)) == 2 * chunk
    assert set(blocks).isdisjoint(cache.pool.match(new))


@pytest.mark.parametrize("older", ["own", "sibling"])
def test_of_all_caches_on_the_device_the_oldest_block_goes_first(older: str) -> None:
    budget, caches = Budget(), list[KVCache]()
    own, sibling = (make_cache(budget=budget, siblings=caches) for _ in range(2))
    chunk = own.memory.blocks_per_chunk
    tokens = [1] * (3 * chunk * BLOCK_SIZE)
    for cache in (own, sibling) if older == "own" else (sibling, own):
        remember(cache, tokens)
    budget.limit = budget.used
    own.allocate(chunk)
    left = {"own": len(own.pool.match(tokens)), "sibling": len(sibling.pool.match(tokens))}
    assert left.pop(older) == 2 * chunk
    assert left.popitem()[1] == 3 * chunk


def test_a_limit_of_its_own_costs_siblings_nothing() -> None:
    caches = list[KVCache]()
    sibling = make_cache(siblings=caches)
    own = make_cache(siblings=caches, limit=2 * sibling.chunk_bytes)
    tokens = [1] * (3 * sibling.memory.blocks_per_chunk * BLOCK_SIZE)
    remember(sibling, tokens)
    with pytest.raises(OutOfMemory):
        own.allocate(3 * own.memory.blocks_per_chunk)
    assert len(sibling.pool.match(tokens)) == len(tokens) // BLOCK_SIZE


def test_a_sibling_keeps_its_first_chunk_and_what_is_cached_in_it() -> None:
    budget, caches = Budget(), list[KVCache]()
    own, sibling = (make_cache(budget=budget, siblings=caches) for _ in range(2))
    tokens = [1] * BLOCK_SIZE
    remember(sibling, tokens)
    own.reserve()
    budget.limit = budget.used
    with pytest.raises(OutOfMemory):
        own.allocate(own.memory.blocks_per_chunk + 1)
    assert sibling.pool.match(tokens)


@given(quiet_chunks=st.integers(0, 5), cached_chunks=st.integers(0, 8))
@settings(max_examples=20)
def test_what_is_kept_while_quiet_is_bounded(quiet_chunks: int, cached_chunks: int) -> None:
    chunk_bytes = make_cache().chunk_bytes
    cache = make_cache(quiet_limit=quiet_chunks * chunk_bytes)
    cache.reserve()
    tokens = [1] * (cached_chunks * cache.memory.blocks_per_chunk * BLOCK_SIZE)
    remember(cache, tokens)
    cache.settle()
    kept = min(quiet_chunks, cached_chunks)
    assert len(cache.pool.match(tokens)) == kept * cache.memory.blocks_per_chunk
    assert len(cache.memory.committed) == max(1, kept)


def test_resetting_gives_the_memory_back() -> None:
    cache = make_cache()
    remember(cache, [1] * (3 * cache.memory.blocks_per_chunk * BLOCK_SIZE))
    cache.forget_prefixes()
    assert len(cache.memory.committed) == 1
    assert cache.pool.cached_blocks == 0


def test_accounts_that_do_not_add_up_empty_the_cache(caplog: pytest.LogCaptureFixture) -> None:
    cache = make_cache()
    tokens = [1] * (5 * BLOCK_SIZE)
    blocks = remember(cache, tokens)
    cache.settle()
    assert not caplog.records
    cache.pool._free.give(blocks[2], blocks[2] + 1)
    cache.settle()
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "do not add up" in caplog.text
    assert cache.pool.match(tokens) == []
    assert list(cache.allocate(5)) == [0, 1, 2, 3, 4]
    assert cache.memory.arena.committed == cache.committed


@pytest.mark.parametrize("page", [PAGE, HUGE_PAGE])
@pytest.mark.parametrize("shape", [SMALL, LARGE, (3, 2, 72)])
def test_all_blocks_can_be_had_and_lie_apart(shape: tuple[int, int, int], page: int) -> None:
    cache = make_cache(shape, 9, page=page)
    blocks = cache.allocate(9)
    for block in blocks:
        for keys, values in cache.layers:
            keys[block], values[block] = block + 1, -block - 1
    for block in blocks:
        for keys, values in cache.layers:
            assert (keys[block] == block + 1).all()
            assert (values[block] == -block - 1).all()
    with pytest.raises(OutOfMemory):
        cache.allocate(1)


@pytest.mark.parametrize("shape", [(36, 8, 128), (30, 3, 64), (3, 2, 72)])
def test_where_pages_are_large_a_chunk_is_one_piece_of_few_blocks(shape: tuple[int, int, int]) -> None:
    memory = make_cache(shape, page=HUGE_PAGE).memory
    layers, heads, size = shape
    plain = 2 * layers * BLOCK_SIZE * heads * size * 2
    assert plain <= memory.block_bytes < plain + HUGE_PAGE // 64
    assert memory.chunk_bytes % HUGE_PAGE == 0
    assert memory.blocks_per_chunk <= 64
    memory.commit(1)
    memory.commit(2)
    memory.release(1)
    assert memory.arena.committed == memory.chunk_bytes
    starts = {keys[memory.blocks_of(2)[0]].data_ptr() for keys, _ in memory.layers}
    within = range(*(memory.arena.tensor.data_ptr() + at * memory.chunk_bytes for at in (2, 3)))
    assert all(start in within for start in starts)


def test_where_pages_are_large_the_first_chunk_has_memory_as_long_as_any_other() -> None:
    cache = make_cache(page=HUGE_PAGE, quiet_limit=2 * HUGE_PAGE * 64)
    chunk = cache.memory.blocks_per_chunk
    first = cache.allocate(chunk)
    remember(cache, list(range(chunk * BLOCK_SIZE)))
    cache.pool.release(first)
    cache.settle()
    assert cache.memory.committed == {0, 1}, "the second is cached"
    cache.trim()
    assert cache.memory.committed == set()


def test_memory_begins_with_the_first_chunk_where_pages_are_large() -> None:
    cache = make_cache(page=HUGE_PAGE)
    chunk = cache.memory.blocks_per_chunk
    cache.allocate(chunk)
    held = list(cache.allocate(chunk))
    cache.pool.release(range(chunk))
    cache.park(1, lambda: False)
    cache.trim()
    assert cache.memory.committed == {0, 1}
    assert cache.kept == cache.committed
    cache.unpark()
    cache.pool.release(held)
    cache.trim()
    assert cache.memory.committed == set()


def test_where_pages_are_large_a_chunk_is_committed_in_one_piece() -> None:
    cache = make_cache((36, 8, 128), page=HUGE_PAGE)
    assert cache.memory.arena.granularity == cache.chunk_bytes > HUGE_PAGE


def test_a_released_chunk_reads_zero() -> None:
    cache = make_cache()
    chunk = cache.memory.blocks_per_chunk
    blocks = cache.allocate(2 * chunk)
    cache.layers[5][1][: 2 * chunk] = 3
    cache.pool.release(blocks[chunk:])
    assert cache.trim() == cache.chunk_bytes
    assert (cache.layers[5][1][:chunk] == 3).all()
    assert not cache.layers[5][1][chunk : 2 * chunk].any()
