"""Whose block is whose: nothing handed out twice, nothing lost, and what is found is what was computed."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.blocks import BLOCK_SIZE, BlockPool, blocks_for
from engine.free_ids import FreeIds

Content = tuple[int, ...]
"""All tokens from the beginning to the end of a block: what its keys and values depend on."""


@dataclass(eq=False)
class Holder:
    """A sequence, as far as blocks go."""

    tokens: list[int]
    blocks: list[int]
    computed: int = 0


class PoolMachine(RuleBasedStateMachine):
    """Sequences of few different tokens, so that many begin alike, in a small pool."""

    size = 24

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(self.size)
        self.holders: list[Holder] = []
        self.content: dict[int, Content] = {}
        """What was last computed into each block."""

    def holder(self, data: st.DataObject) -> Holder:
        return data.draw(st.sampled_from(self.holders))

    def allocate(self, holder: Holder, room: int = 0) -> bool:
        count = blocks_for(len(holder.tokens)) - len(holder.blocks)
        after = holder.blocks[-1] if holder.blocks else None
        found = self.pool.find(count, after, room)
        while found is None:
            if self.pool.evict() is None:
                return False
            found = self.pool.find(count, after, room)
        held = {block for other in self.holders for block in other.blocks}
        assert held.isdisjoint(found)
        assert len(set(found)) == count
        self.pool.take(found, after, room)
        holder.blocks += found
        return True

    @rule(blocks=st.lists(st.integers(0, 2), max_size=6), tail=st.integers(1, 17), room=st.integers(0, 12))
    def begin(self, blocks: list[int], tail: int, room: int) -> None:
        tokens = [token for token in blocks for _ in range(BLOCK_SIZE)] + [9] * tail
        found = self.pool.match(tokens[:-1])
        for index, block in enumerate(found):
            assert self.content[block] == tuple(tokens[: (index + 1) * BLOCK_SIZE])
        assert len(found) * BLOCK_SIZE < len(tokens)
        self.pool.hold(found)
        holder = Holder(tokens, found, len(found) * BLOCK_SIZE)
        self.holders.append(holder)
        if not self.allocate(holder, room):
            self.release_(holder)

    @precondition(lambda self: self.holders)
    @rule(data=st.data(), count=st.integers(1, 40))
    def compute(self, data: st.DataObject, count: int) -> None:
        holder = self.holder(data)
        before = holder.computed
        holder.computed = min(len(holder.tokens), before + count)
        full = range(before // BLOCK_SIZE, holder.computed // BLOCK_SIZE)
        for index in full:
            self.content[holder.blocks[index]] = tuple(holder.tokens[: (index + 1) * BLOCK_SIZE])
        self.pool.publish(holder.blocks, holder.tokens, full)

    @precondition(lambda self: self.holders)
    @rule(data=st.data(), token=st.integers(0, 1), room=st.integers(0, 4))
    def say(self, data: st.DataObject, token: int, room: int) -> None:
        holder = self.holder(data)
        holder.tokens.append(token)
        if not self.allocate(holder, room):
            self.release_(holder)

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        leader = self.holder(data)
        shared = leader.blocks[: leader.computed // BLOCK_SIZE]
        self.pool.hold(shared)
        self.holders.append(Holder(leader.tokens.copy(), list(shared), len(shared) * BLOCK_SIZE))
        if not self.allocate(self.holders[-1]):
            self.release_(self.holders[-1])

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.release_(self.holder(data))

    def release_(self, holder: Holder) -> None:
        self.holders.remove(holder)
        self.pool.release(holder.blocks)

    @rule()
    def evict(self) -> None:
        cached = self.pool.cached_blocks
        block = self.pool.evict()
        assert (block is None) == (cached == 0)
        assert block not in self.pool.taken

    @rule()
    def forget(self) -> None:
        self.pool.forget_prefixes()
        assert self.pool.cached_blocks == 0

    @invariant()
    def every_block_is_accounted_for(self) -> None:
        held = {block for holder in self.holders for block in holder.blocks}
        assert self.pool.held_blocks == len(held)
        assert held <= set(self.pool.taken)
        assert len(self.pool.taken) == len(held) + self.pool.cached_blocks
        promised = sum(stop - block - 1 for block, stop in self.pool._promised.items())
        assert len(self.pool._free) + promised + len(self.pool.taken) == self.size

    @invariant()
    def tokens_are_those_that_the_block_was_computed_from(self) -> None:
        for holder in self.holders:
            for index in range(holder.computed // BLOCK_SIZE):
                assert self.content[holder.blocks[index]] == tuple(holder.tokens[: (index + 1) * BLOCK_SIZE])

    @invariant()
    def a_known_block_follows_a_known_block(self) -> None:
        assert self.pool._prefixes.fault() is None

    def teardown(self) -> None:
        for holder in list(self.holders):
            self.release_(holder)
        assert self.pool.fault() is None
        while self.pool.evict() is not None:
            pass
        assert [len(stretch) for stretch in self.pool._free] == [self.size]


TestPool = PoolMachine.TestCase
TestPool.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def held(pool: BlockPool, count: int, *, after: int | None = None, room: int = 0) -> list[int]:
    found = pool.find(count, after, room)
    assert found is not None
    pool.take(found, after, room)
    return list(found)


def cached(pool: BlockPool, tokens: list[int]) -> list[int]:
    """The blocks of a sequence that came and went."""
    blocks = held(pool, len(tokens) // BLOCK_SIZE)
    pool.publish(blocks, tokens, range(len(blocks)))
    pool.release(blocks)
    return blocks


def test_a_sequence_grows_into_its_own_room() -> None:
    pool = BlockPool(100)
    first, second = held(pool, 3, room=6), held(pool, 2, room=4)
    assert (first, second) == ([0, 1, 2], [6, 7])
    assert held(pool, 1, after=2, room=3) == [3]
    assert held(pool, 2, after=7, room=2) == [8, 9]
    assert held(pool, 2, after=3, room=2) == [4, 5]
    assert held(pool, 1, after=5) == [10], "what is left free behind others' rooms"


def test_a_new_sequence_takes_the_lowest_place_that_has_room_else_the_longest() -> None:
    pool = BlockPool(20)
    for first in (range(3, 4), range(9, 10), range(12, 20)):
        pool.take(first, None, 0)
    assert held(pool, 1, room=4) == [4]
    assert held(pool, 2, room=9) == [0, 1], "and keeps what room there is"
    assert held(pool, 1) == [8], "since those before it are promised"
    assert held(pool, 3) == [5, 6, 7], "promises are broken when it must be"
    assert held(pool, 3) == [2, 10, 11], "in pieces when there is no other way"
    assert pool.find(1, None, 0) is None


def test_the_least_recently_used_goes_first_and_ends_before_beginnings() -> None:
    pool = BlockPool(20)
    common, one, other = [1] * 32, [2] * 16, [3] * 16
    older = cached(pool, common + one)
    newer = cached(pool, common + other)
    assert pool.match(common + one) == older
    assert set(newer).isdisjoint(pool.taken), "its beginning was known, so its end is behind unknown blocks"
    used = pool.match(common)
    pool.hold(used)
    pool.release(used)
    order = [pool.evict() for _ in range(pool.cached_blocks)]
    assert order[-2:] == [older[1], older[0]]
    assert order[0] == older[2]


def test_a_shared_block_is_free_when_its_last_holder_has_left() -> None:
    pool = BlockPool(4, caching=False)
    blocks = held(pool, 2)
    pool.hold(blocks[:1])
    pool.release(blocks)
    assert list(pool.taken) == blocks[:1]
    assert held(pool, 3) == [1, 2, 3]
    pool.release(blocks[:1])
    assert held(pool, 1) == [0]


def test_the_same_tokens_behind_others_are_other_blocks() -> None:
    pool = BlockPool(20)
    first = cached(pool, [1] * 16 + [2] * 16)
    assert pool.match([2] * 16) == []
    second = cached(pool, [3] * 16 + [2] * 16)
    assert pool.match([1] * 16 + [2] * 16) == first
    assert pool.match([3] * 16 + [2] * 16) == second


def test_nothing_is_cached_without_caching() -> None:
    pool = BlockPool(20, caching=False)
    cached(pool, [1] * 32)
    assert pool.match([1] * 32) == []
    assert pool.cached_blocks == 0


def test_who_still_runs_keeps_its_blocks_when_all_is_forgotten() -> None:
    pool = BlockPool(20)
    tokens = [1] * 32
    blocks = held(pool, 3)
    pool.publish(blocks, tokens, range(2))
    pool.forget_prefixes()
    assert pool.match(tokens) == []
    pool.publish(blocks, tokens + [1] * 16, range(2, 3))
    assert pool.match(tokens + [1] * 16) == [], "behind a block that is forgotten"
    assert set(pool.taken) == set(blocks)
    pool.release(blocks)
    assert not pool.taken
    assert pool.fault() is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda pool: pool._holders.update({0: 1}),
        lambda pool: pool._holders.pop(0),
        lambda pool: pool._free.give(0, 1),
        lambda pool: pool._idle.popitem(),
        lambda pool: pool._prefixes._keys.update({0: (1, (5,) * BLOCK_SIZE)}),
        lambda pool: pool._prefixes.clear(),
        lambda pool: pool._promised.update({0: 3}),
    ],
)
def test_a_violation_is_seen(damage) -> None:  # type: ignore[no-untyped-def]
    pool = BlockPool(20)
    cached(pool, [1] * 16 + [2] * 16)
    assert pool.fault() is None
    damage(pool)
    assert pool.fault()


@given(st.data())
@settings(max_examples=50)
def test_free_ids_are_a_set_in_stretches(data: st.DataObject) -> None:
    size = 30
    ids, model = FreeIds(size), set(range(size))
    for _ in range(data.draw(st.integers(0, 30))):
        first = data.draw(st.integers(0, size - 1))
        span = set(range(first, data.draw(st.integers(first, size))))
        if span and span <= model:
            ids.take(first, first + len(span))
            model -= span
        elif span and span.isdisjoint(model):
            ids.give(first, first + len(span))
            model |= span
        stretches = list(ids)
        assert {one for stretch in stretches for one in stretch} == model
        assert len(ids) == len(model)
        assert all(a.stop < b.start for a, b in pairwise(stretches))
        reach = ids.from_id(first)
        assert set(reach) <= model and reach.stop not in model
        assert (first in model) == bool(reach)
        long = ids.with_room(5)
        assert long == next((s for s in stretches if len(s) >= 5), max(stretches, key=len, default=range(0)))


def test_blocks_for() -> None:
    assert [blocks_for(n) for n in (0, 1, 16, 17)] == [0, 1, 1, 2]
