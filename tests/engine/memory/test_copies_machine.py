"""Models of one device that sleep and wake in any order, some calls of which fail: what is locked stays
within the limit, sleepers keep their copies, and whoever wakes has its own bytes."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from engine.cuda_store import CudaStore, SharedRing
from engine.memory.copies import HostCopies
from engine.memory.cuda import CudaArena
from engine.memory.ring import Ring
from engine.memory.sizes import HUGE_PAGE
from engine.store import Source
from engine.types import EngineError, OutOfMemory
from tests.engine.memory.fake_driver import GRANULARITY as G
from tests.engine.memory.fake_driver import FakeDriver
from tests.engine.test_ring_reader import Stored, expected, lay_out, write_shard

MODELS = 3
RING = HUGE_PAGE
FAILING = ["mem_create", "mem_map", "copy_to_device", "copy_to_host", "host_register", "stream_create"]

numbers = st.integers(0, MODELS - 1)


class Sleeper:
    """One model's store over its arena."""

    def __init__(self, machine: Copies, number: int, copy_early: bool) -> None:
        shard = write_shard(machine.directory / str(number), [Stored("BF16", 5 * G // 2)], seed=number)
        slices = lay_out([shard], torch.bfloat16, list)
        self.arena = CudaArena(machine.driver, 5 * G, make_tensor=machine.driver.tensor, chunk=2 * G)
        self.source = Source([shard], slices, torch.bfloat16, 5 * G)
        self.bytes = expected([shard], slices, torch.bfloat16, 5 * G)
        self.store = CudaStore(
            machine.driver, machine.copies, machine.ring, self.arena, copy_early=copy_early
        )
        self.state: Literal["awake", "light", "deep"] = "deep"
        self.kept = 0
        """Bytes that it fell asleep with."""


class Copies(RuleBasedStateMachine):
    @initialize(
        limit=st.integers(0, MODELS).map(lambda copies: RING + copies * HUGE_PAGE),
        early=st.lists(st.booleans(), min_size=MODELS, max_size=MODELS),
    )
    def make(self, limit: int, early: list[bool]) -> None:
        self._temporary = TemporaryDirectory()
        self.directory = Path(self._temporary.name)
        self.driver = FakeDriver()
        self.copies = HostCopies(self.driver, set_aside=RING)
        self.copies.limit(limit)
        self.made: list[Ring] = []
        self.ring = SharedRing(lambda: self.copies.find_room(self._make_ring))
        self.sleepers = [Sleeper(self, number, each) for number, each in enumerate(early)]

    def _make_ring(self) -> Ring:
        self.made.append(Ring(self.driver, 2, 4 * 4096))
        return self.made[-1]

    @rule(number=numbers, failing=st.none() | st.tuples(st.sampled_from(FAILING), st.integers(1, 3)))
    def wake(self, number: int, failing: tuple[str, int] | None) -> None:
        one = self.sleepers[number]
        if one.state == "awake":
            return
        self._fail(failing)
        before = one.store.copied
        try:
            with one.store.filled(one.source):
                assert torch.equal(one.arena.tensor[: len(one.bytes)], one.bytes)
                copied = one.store.copied
                with suppress(EngineError):
                    self.copies.make_needed(HUGE_PAGE).close()
                assert one.store.copied == copied, "it is in use"
        except EngineError as error:
            assert failing and failing[0] in str(error)
            assert (one.arena.committed, one.store.copied) == (0, before)
        else:
            one.state = "awake"
        self._fail(None)

    @rule(number=numbers, failing=st.none() | st.sampled_from(FAILING).map(lambda call: (call, 1)))
    def sleep_lightly(self, number: int, failing: tuple[str, int] | None) -> None:
        one = self.sleepers[number]
        if one.state != "awake":
            return
        self._fail(failing)
        needed = HUGE_PAGE - one.store.copied
        kept = sum(each.store.copied for each in self.sleepers if each.state == "light")
        fits = kept + HUGE_PAGE <= (self.copies.budget.limit or 0) - RING
        try:
            one.store.keep(one.source)
        except OutOfMemory:
            assert needed and not fits
        except EngineError as error:
            assert failing and failing[0] in str(error)
        else:
            assert fits or not needed
        self._fail(None)
        one.arena.release(0, 5 * G)
        one.state, one.kept = "light", one.store.copied

    @rule(number=numbers)
    def sleep_deeply(self, number: int) -> None:
        one = self.sleepers[number]
        if one.state == "awake":
            one.arena.release(0, 5 * G)
        one.store.forget()
        one.state, one.kept = "deep", 0

    @rule(limit=st.integers(0, MODELS + 1).map(lambda copies: copies * HUGE_PAGE))
    def limit(self, limit: int) -> None:
        self.copies.limit(limit)

    @invariant()
    def what_is_locked_is_counted_and_within_the_limit(self) -> None:
        if not hasattr(self, "sleepers"):
            return
        assert not self.driver.misuses
        copied = sum(each.store.copied for each in self.sleepers)
        locked = sum(map(len, self.driver.registered.values()))
        assert locked == copied + RING * len(self.made)
        assert self.copies.budget.used == copied + RING
        if any(each.store.copied for each in self.sleepers if each.state == "awake"):
            assert copied + RING <= (self.copies.budget.limit or 0)

    @invariant()
    def sleepers_keep_their_copies(self) -> None:
        if not hasattr(self, "sleepers"):
            return
        for each in self.sleepers:
            assert each.state == "awake" or each.store.copied == each.kept
            memory = each.store._copy.memory
            if memory is not None:
                assert torch.equal(memory.tensor[: len(each.bytes)], each.bytes)

    def _fail(self, failing: tuple[str, int] | None) -> None:
        self.driver.failing = lambda index, call: None
        if failing:
            self.driver.fail(*failing)

    def teardown(self) -> None:
        if hasattr(self, "sleepers"):
            for each in self.sleepers:
                each.store.forget()
                each.arena.close()
            for ring in self.made:
                ring.close()
            assert self.copies.budget.used == RING
            self.driver.assert_clean()
            self._temporary.cleanup()


TestCopies = Copies.TestCase
TestCopies.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
