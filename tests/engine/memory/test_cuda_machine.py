"""Any order of commits and releases, some of which fail, against a plain list of what must be where."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.memory.budget import Budget
from engine.memory.cuda import CudaArena
from engine.memory.driver import DriverError
from engine.types import OutOfMemory
from tests.engine.memory.fake_driver import GRANULARITY as G
from tests.engine.memory.fake_driver import FakeDriver

SIZE, DEVICE = 12, 14
"""Pieces of an arena, and of the device's memory."""

FAILING = ["mem_create", "mem_map", "mem_set_access"]


class Arenas(RuleBasedStateMachine):
    """Two on one device: in the first any piece is released by itself, in the second what was committed."""

    @initialize(chunk=st.integers(1, 5), limit=st.sampled_from([9, None]))
    def make(self, chunk: int, limit: int | None) -> None:
        self.driver = driver = FakeDriver(memory=DEVICE * G)
        self.budget = Budget(limit and limit * G)
        self.room = (limit or DEVICE) * G
        self.arenas = [
            CudaArena(driver, SIZE * G, each, make_tensor=driver.tensor, budget=self.budget, chunk=chunk * G)
            for each in (G, None)
        ]
        self.contents: list[list[int | None]] = [[None] * SIZE for _ in self.arenas]
        self.commits: list[tuple[int, int]] = []
        """Of the second arena, as (first, count)."""

    @rule(
        which=st.integers(0, 1),
        start=st.integers(0, SIZE - 1),
        count=st.integers(0, SIZE),
        value=st.integers(0, 255),
        failing=st.none() | st.tuples(st.sampled_from(FAILING), st.integers(1, 6)),
        body_fails=st.booleans(),
    )
    def commit(
        self,
        which: int,
        start: int,
        count: int,
        value: int,
        failing: tuple[str, int] | None,
        body_fails: bool,
    ) -> None:
        arena, contents = self.arenas[which], self.contents[which]
        taken = [index for index in range(start, SIZE) if contents[index] is not None]
        count = min(count, min(taken, default=SIZE) - start)
        if failing:
            self.driver.fail(*failing)
        try:
            with arena.commit(start * G, count * G):
                arena.tensor[start * G : (start + count) * G].fill_(value)
                if body_fails:
                    raise KeyError
        except DriverError as error:
            assert failing and error.call == failing[0]
        except OutOfMemory as error:
            room = self.room - self.budget.used
            assert count * G > room == error.available
        except KeyError:
            assert body_fails
        else:
            contents[start : start + count] = [value] * count
            if which == 1 and count:
                self.commits.append((start, count))
        self.driver.failing = lambda index, call: None

    @rule(start=st.integers(0, SIZE - 1), count=st.integers(0, SIZE))
    def release(self, start: int, count: int) -> None:
        """A part of the first arena, whoever committed it; refused where there is nothing."""
        count = min(count, SIZE - start)
        there = None not in self.contents[0][start : start + count]
        try:
            self.arenas[0].release(start * G, count * G)
        except ValueError:
            assert not there
        else:
            assert there
            self.contents[0][start : start + count] = [None] * count

    @precondition(lambda self: self.commits)
    @rule(data=st.data())
    def release_a_commit(self, data: st.DataObject) -> None:
        start, count = self.commits.pop(data.draw(st.integers(0, len(self.commits) - 1)))
        self.arenas[1].release(start * G, count * G)
        self.contents[1][start : start + count] = [None] * count

    @invariant()
    def holds_what_the_list_says(self) -> None:
        if not hasattr(self, "arenas"):
            return
        assert not self.driver.misuses
        for arena, contents in zip(self.arenas, self.contents, strict=True):
            assert arena.committed == sum(value is not None for value in contents) * G
            for index, value in enumerate(contents):
                if value is not None:
                    assert (arena.tensor[index * G : (index + 1) * G] == value).all()
        assert self.budget.used == self.driver.used == sum(arena.committed for arena in self.arenas)

    def teardown(self) -> None:
        if hasattr(self, "arenas"):
            for arena in self.arenas:
                arena.close()
            assert self.budget.used == 0
            self.driver.assert_clean()


TestArenas = Arenas.TestCase
TestArenas.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
