"""The accounting of blocks: nothing handed out twice, nothing lost, and memory only behind what is in use."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.kv_cache import BLOCK_SIZE, KVCache, arena_bytes, block_stride, blocks_for, blocks_within
from engine.memory.cpu import HUGE_PAGE, CpuArena
from engine.types import OutOfMemory

SHAPES = {
    "many blocks a chunk": (2, 2, 32),
    "one block of several pages": (32, 8, 256),
    "uneven": (3, 2, 72),
}


def make_cache(shape: tuple[int, int, int], blocks: int) -> tuple[KVCache, CpuArena]:
    layers, heads, size = shape
    block_bytes = 2 * layers * BLOCK_SIZE * heads * size * 2
    arena = CpuArena(arena_bytes(block_bytes, blocks, HUGE_PAGE))
    return KVCache(arena, shape, torch.bfloat16, blocks), arena


class CacheMachine(RuleBasedStateMachine):
    """Any order of taking, giving back and trimming, with RAM that is sometimes short."""

    shape = SHAPES["many blocks a chunk"]
    blocks = 700

    def __init__(self) -> None:
        super().__init__()
        self.cache, self.arena = make_cache(self.shape, self.blocks)
        self.held: list[list[int]] = []
        self.short = False
        self.chunk = self.cache.chunk_bytes
        self.commit = self.arena.commit
        self.arena.commit = self.commit_unless_short  # type: ignore[method-assign]

    def commit_unless_short(self, offset: int, length: int):  # type: ignore[no-untyped-def]
        assert offset % self.chunk == 0
        assert length == self.chunk
        if self.short:
            raise OutOfMemory(length, 0)
        return self.commit(offset, length)

    @property
    def taken(self) -> list[int]:
        return [block for blocks in self.held for block in blocks]

    @rule(count=st.integers(0, 200))
    def allocate(self, count: int) -> None:
        try:
            blocks = self.cache.allocate(count)
        except OutOfMemory:
            assert self.short or len(self.taken) + count > self.cache.num_blocks
            return
        assert len(set(blocks)) == count
        assert set(blocks).isdisjoint(self.taken)
        assert all(0 <= block < self.cache.num_blocks for block in blocks)
        self.held.append(blocks)
        for block in blocks:
            self.cache.layers[0][0][block] = block

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        self.cache.free(self.held.pop(data.draw(st.integers(0, len(self.held) - 1))))

    @rule(keep=st.integers(0, 2))
    def trim(self, keep: int) -> None:
        before = self.cache.committed
        freed = self.cache.trim(keep)
        assert before - self.cache.committed == freed
        used = {block // self.cache.blocks_per_chunk for block in self.taken}
        assert len(used) <= self.cache.committed // self.chunk <= len(used) + keep

    @rule()
    def run_short_of_ram(self) -> None:
        self.short = not self.short

    @invariant()
    def counts_are_exact(self) -> None:
        assert self.cache.used_blocks == len(self.taken)
        assert self.cache.committed == self.arena.committed
        assert self.cache.committed >= len(self.taken) / self.cache.blocks_per_chunk * self.chunk

    @invariant()
    def blocks_hold_what_was_written(self) -> None:
        keys = self.cache.layers[0][0]
        assert all(
            keys[blocks[0]][0, 0, 0] == torch.tensor(blocks[0]).bfloat16() for blocks in self.held if blocks
        )

    def teardown(self) -> None:
        self.arena.close()


class LargeBlocks(CacheMachine):
    shape = SHAPES["one block of several pages"]
    blocks = 7


class UnevenBlocks(CacheMachine):
    shape = SHAPES["uneven"]
    blocks = 300


TestManyBlocks = CacheMachine.TestCase
TestLargeBlocks = LargeBlocks.TestCase
TestUnevenBlocks = UnevenBlocks.TestCase
for _case in (TestManyBlocks, TestLargeBlocks, TestUnevenBlocks):
    _case.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
del _case


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_all_blocks_can_be_had_and_lie_apart(shape: tuple[int, int, int]) -> None:
    cache, arena = make_cache(shape, 8)
    assert cache.num_blocks == 8
    blocks = cache.allocate(8)
    for block in blocks:
        for keys, values in cache.layers:
            keys[block], values[block] = block + 1, -block - 1
    for block in blocks:
        for keys, values in cache.layers:
            assert (keys[block] == block + 1).all()
            assert (values[block] == -block - 1).all()
    with pytest.raises(OutOfMemory):
        cache.allocate(1)
    arena.close()


def test_a_released_chunk_reads_zero() -> None:
    cache, arena = make_cache(SHAPES["one block of several pages"], 4)
    blocks = cache.allocate(3)
    cache.layers[5][1][blocks] = 3
    cache.free(blocks[1:])
    assert cache.trim() == 2 * cache.chunk_bytes
    assert (cache.layers[5][1][blocks[0]] == 3).all()
    assert not cache.layers[5][1][blocks[1]].any()
    arena.close()


def test_the_lowest_block_is_handed_out_first() -> None:
    """So that the high chunks fall free."""
    cache, arena = make_cache(SHAPES["many blocks a chunk"], 100)
    blocks = cache.allocate(10)
    assert blocks == list(range(10))
    cache.free([7, 2, 5])
    assert cache.allocate(4) == [2, 5, 7, 10]
    arena.close()


def test_the_arena_may_be_smaller_than_the_blocks_asked_for() -> None:
    arena = CpuArena(3 * HUGE_PAGE)
    cache = KVCache(arena, SHAPES["many blocks a chunk"], torch.bfloat16, 10**6)
    assert cache.num_blocks == 3 * HUGE_PAGE // cache.block_bytes
    assert len(cache.allocate(cache.num_blocks)) == cache.num_blocks
    arena.close()


@pytest.mark.parametrize("nbytes", [100, 6144, 49_152, 100_000, 3_000_000, 50_000_000])
def test_padding_is_at_most_an_eighth_and_chunks_are_whole_pages(nbytes: int) -> None:
    stride = block_stride(nbytes, HUGE_PAGE)
    assert nbytes <= stride <= max(nbytes * 9 / 8, nbytes + 64)
    assert arena_bytes(nbytes, 5, HUGE_PAGE) % HUGE_PAGE == 0
    assert arena_bytes(nbytes, 5, HUGE_PAGE) >= 5 * stride


@given(
    limit=st.integers(0, 2**33), nbytes=st.sampled_from([100, 6144, 49_152, 100_000, 3_000_000, 50_000_000])
)
def test_a_limit_is_kept_to_in_whole_chunks(limit: int, nbytes: int) -> None:
    """Or to one chunk, which is the least."""
    blocks = blocks_within(limit, nbytes, HUGE_PAGE)
    chunk = arena_bytes(nbytes, 1, HUGE_PAGE)
    committed = arena_bytes(nbytes, blocks, HUGE_PAGE)
    assert committed <= max(limit, chunk)
    assert limit - committed < chunk


def test_blocks_for() -> None:
    assert [blocks_for(n) for n in (0, 1, 16, 17)] == [0, 1, 1, 2]
