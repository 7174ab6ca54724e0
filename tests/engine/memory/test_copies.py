"""Copies in locked memory: which of them give way, to whom, and when none does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.memory.copies import HostCopies, HostCopy
from engine.memory.driver import DriverError
from engine.memory.host import LockedMemory
from engine.memory.sizes import HUGE_PAGE
from engine.types import OutOfMemory
from tests.engine.memory.fake_driver import FakeDriver
from tests.engine.memory.roots import FakeRoot

H = HUGE_PAGE


class Scene:
    def __init__(self) -> None:
        self.driver = FakeDriver()
        self.copies = HostCopies(self.driver, set_aside=H)
        self.copies.limit(5 * H)
        self.made: list[HostCopy] = []

    def copy(self, size: int, *, spare: bool = True) -> HostCopy:
        copy = HostCopy()
        copy.memory = self.copies.make_needed(size)
        self.made.append(copy)
        if spare:
            self.copies.spare(copy)
        return copy

    def sizes(self) -> list[int]:
        return [copy.size // H for copy in self.made]

    def locked(self) -> int:
        return sum(map(len, self.driver.registered.values()))


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.driver.failing = lambda index, call: None
    for copy in scene.made:
        scene.copies.claim(copy)
        copy.close()
    assert scene.copies.budget.used == H
    scene.driver.assert_clean()


def test_what_is_set_aside_is_no_copys(scene: Scene) -> None:
    with pytest.raises(OutOfMemory) as caught:
        scene.copies.make(5 * H)
    assert (caught.value.needed, caught.value.available) == (5 * H, 4 * H)
    scene.copies.make(4 * H).close()


def test_the_spare_one_that_was_unused_for_longest_goes_first_and_no_more_than_needed(scene: Scene) -> None:
    first, *_ = [scene.copy(H) for _ in range(4)]
    assert scene.copies.claim(first)
    scene.copies.spare(first)
    scene.copy(2 * H, spare=False)
    assert scene.sizes() == [1, 0, 0, 1, 2]
    scene.copy(H, spare=False)
    assert scene.sizes() == [1, 0, 0, 0, 2, 1]
    assert scene.copies.budget.used == scene.locked() + H == 5 * H


def test_a_sleepers_copy_and_one_in_use_are_never_taken(scene: Scene) -> None:
    sleeper, spare = scene.copy(2 * H, spare=False), scene.copy(2 * H)
    assert scene.copies.claim(spare)
    with pytest.raises(OutOfMemory):
        scene.copies.make_needed(H)
    assert (sleeper.size, spare.size) == (2 * H, 2 * H)


def test_nothing_is_given_back_that_would_not_be_enough(scene: Scene) -> None:
    scene.copy(2 * H, spare=False)
    spare = scene.copy(H)
    with pytest.raises(OutOfMemory):
        scene.copies.make_needed(3 * H)
    assert spare.size == H
    assert scene.copies.claim(spare)


def test_what_nobody_needs_yet_takes_none_that_is_spare(scene: Scene) -> None:
    scene.copy(3 * H)
    with pytest.raises(OutOfMemory):
        scene.copies.make(2 * H)
    assert scene.sizes() == [3]


def test_ram_that_is_short_is_found_too(scene: Scene, tmp_path: Path) -> None:
    """The claim of who needs it says so."""
    scene.copies.limit(None)
    spares = [scene.copy(H) for _ in range(3)]
    root = FakeRoot(tmp_path).memory
    with root.claim(root.state().available - H):

        def take() -> LockedMemory:
            given_back = 3 * H - scene.locked()
            if given_back < 2 * H:
                raise OutOfMemory(3 * H, H + given_back)
            return LockedMemory(scene.driver, H, memory=root)

        memory = scene.copies.find_room(take)
    assert [spare.size for spare in spares] == [0, 0, H]
    memory.close()


def test_a_copy_that_was_given_back_is_not_there(scene: Scene) -> None:
    gone = scene.copy(4 * H)
    scene.copy(4 * H, spare=False)
    assert not scene.copies.claim(gone)
    scene.copies.spare(gone)
    with pytest.raises(OutOfMemory):
        scene.copies.make_needed(H)


def test_a_lower_limit_takes_what_is_spare(scene: Scene) -> None:
    scene.copy(H, spare=False)
    scene.copy(H)
    scene.copy(H)
    scene.copies.limit(3 * H)
    assert scene.sizes() == [1, 0, 1]
    scene.copies.limit(0)
    assert scene.sizes() == [1, 0, 0]


def test_a_sleepers_copy_beyond_a_lower_limit_goes_when_it_is_awake(scene: Scene) -> None:
    sleeper = scene.copy(2 * H, spare=False)
    scene.copies.limit(2 * H)
    assert sleeper.size == 2 * H
    scene.copies.spare(sleeper)
    assert sleeper.size == 0


def test_one_that_cannot_be_unlocked_is_nobodys_and_counts(scene: Scene) -> None:
    spare = scene.copy(4 * H)
    memory = spare.memory
    scene.driver.fail("host_unregister")
    with pytest.raises(DriverError):
        scene.copies.make_needed(H)
    assert not scene.copies.claim(spare)
    assert scene.copies.budget.used - H == scene.locked() == 4 * H
    assert memory
    memory.close()
