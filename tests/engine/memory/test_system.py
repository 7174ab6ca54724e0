"""How much RAM is left, read from made-up /proc and cgroup trees."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import engine
from engine.memory.system import SystemMemory
from engine.types import OutOfMemory
from tests.engine.memory.roots import GIB, NONE_V1, FakeRoot, reserve


@pytest.fixture
def root(tmp_path: Path) -> FakeRoot:
    return FakeRoot(tmp_path)


def test_a_machine_without_cgroups(root: FakeRoot) -> None:
    root.expect(64 * GIB, 40 * GIB)


def test_v2_unlimited(root: FakeRoot) -> None:
    root.v2("/user.slice/shell")
    root.limit_v2("/user.slice/shell", "max", 30 * GIB)
    root.limit_v2("/user.slice", "max", 30 * GIB)
    root.expect(64 * GIB, 40 * GIB)


def test_v2_limited(root: FakeRoot) -> None:
    root.v2("/app")
    root.limit_v2("/app", 8 * GIB, 3 * GIB)
    root.expect(8 * GIB, 5 * GIB)


def test_file_cache_is_not_use(root: FakeRoot) -> None:
    root.v2("/app")
    root.limit_v2("/app", 8 * GIB, 8 * GIB, file=6 * GIB)
    root.expect(8 * GIB, 6 * GIB)


def test_the_tightest_of_the_parents_counts(root: FakeRoot) -> None:
    root.v2("/a/b/c")
    root.limit_v2("/a/b/c", 16 * GIB, 1 * GIB)
    root.limit_v2("/a/b", 20 * GIB, 18 * GIB)
    root.limit_v2("/a", "max", 30 * GIB)
    root.expect(16 * GIB, 2 * GIB)


def test_a_parent_may_give_the_total(root: FakeRoot) -> None:
    root.v2("/a/b")
    root.limit_v2("/a/b", "max", 1 * GIB)
    root.limit_v2("/a", 4 * GIB, 1 * GIB)
    root.expect(4 * GIB, 3 * GIB)


def test_the_machine_may_have_less_than_the_cgroup_allows(root: FakeRoot) -> None:
    root.v2("/app")
    root.limit_v2("/app", 60 * GIB, 1 * GIB)
    root.expect(60 * GIB, 40 * GIB)


def test_a_container_with_its_own_namespace_sees_its_group_as_the_root(root: FakeRoot) -> None:
    root.v2("/")
    root.limit_v2("/", 2 * GIB, 1 * GIB)
    root.expect(2 * GIB, 1 * GIB)


def test_a_container_that_sees_only_its_part_of_the_tree(root: FakeRoot) -> None:
    """The mount shows the container's own group at its top, while /proc names it from the host's root."""
    root.v2("/docker/abc", root="/docker/abc")
    root.limit_v2("/", 2 * GIB, 1 * GIB)
    root.expect(2 * GIB, 1 * GIB)


def test_a_path_out_of_the_namespace_does_not_climb_out_of_the_mount(root: FakeRoot) -> None:
    root.v2("/../../other")
    root.limit_v2("/", 2 * GIB, 1 * GIB)
    root.write("other/memory.max", "1\n")
    root.write("sys/other/memory.max", "1\n")
    root.expect(2 * GIB, 1 * GIB)


def test_v1_unlimited(root: FakeRoot) -> None:
    root.v1("/user")
    root.limit_v1("/user", NONE_V1, 3 * GIB)
    root.limit_v1("/", NONE_V1, 3 * GIB)
    root.expect(64 * GIB, 40 * GIB)


def test_v1_limited_and_nested(root: FakeRoot) -> None:
    root.v1("/docker/abc")
    root.limit_v1("/docker/abc", 8 * GIB, 6 * GIB, file=3 * GIB)
    root.limit_v1("/docker", NONE_V1, 30 * GIB)
    root.expect(8 * GIB, 5 * GIB)


def test_v1_in_a_container_without_a_namespace(root: FakeRoot) -> None:
    root.v1("/docker/abc", root="/docker/abc")
    root.limit_v1("/", 8 * GIB, 6 * GIB)
    root.expect(8 * GIB, 2 * GIB)


def test_v1_counts_what_children_use(root: FakeRoot) -> None:
    """``total_`` in memory.stat includes them, as usage does; the plain numbers do not."""
    root.v1("/a/b")
    root.limit_v1("/a/b", NONE_V1, 1 * GIB)
    root.limit_v1("/a", 8 * GIB, 8 * GIB, file=5 * GIB)
    root.expect(8 * GIB, 5 * GIB)


def test_both_versions_at_once(root: FakeRoot) -> None:
    """Hybrid: memory is with version 1, the version 2 tree has no memory files."""
    root.v1("/app")
    root.mount("/sys/fs/cgroup/unified", "cgroup2")
    root.limit_v1("/app", 4 * GIB, 1 * GIB)
    root.expect(4 * GIB, 3 * GIB)


def test_over_the_limit_is_less_than_nothing_and_claims_nothing(root: FakeRoot) -> None:
    root.v2("/app")
    root.limit_v2("/app", 1 * GIB, 2 * GIB)
    assert root.memory.state().available == -1 * GIB - reserve(1 * GIB)
    with pytest.raises(OutOfMemory) as caught, root.memory.claim(1):
        pass
    assert caught.value.available == 0


def test_a_group_that_is_just_being_taken_down_is_passed_over(root: FakeRoot) -> None:
    root.v2("/app")
    root.limit_v2("/app", 8 * GIB, 3 * GIB)
    (root.path / "sys/fs/cgroup/app/memory.current").unlink()
    (root.path / "sys/fs/cgroup/app/memory.stat").unlink()
    root.expect(64 * GIB, 40 * GIB)


def test_the_reserve_is_bounded() -> None:
    assert reserve(1000 * GIB) == 256 * 2**20
    assert reserve(4 * GIB) == int(0.08 * GIB)
    assert reserve(1 * GIB) == 32 * 2**20


def test_this_machine() -> None:
    state = SystemMemory().state()
    assert 0 < state.available <= state.total
    assert state.shared_with_host


def test_the_seam_tells_of_this_machine_and_of_no_other_device() -> None:
    state = engine.memory_state("cpu")
    assert 0 < state.available <= state.total
    with pytest.raises(engine.EngineError, match="cuda:7"):
        engine.memory_state("cuda:7")


def test_a_claim_counts_until_it_ends(root: FakeRoot) -> None:
    memory = root.memory
    free = memory.state().available
    with memory.claim(3 * GIB):
        with pytest.raises(OutOfMemory) as caught, memory.claim(free):
            pass
        assert (caught.value.needed, caught.value.available) == (free, free - 3 * GIB)
        with memory.claim(free - 3 * GIB), pytest.raises(OutOfMemory), memory.claim(1):
            pass
    with pytest.raises(RuntimeError), memory.claim(free):
        raise RuntimeError
    with memory.claim(free):
        pass


def test_what_is_touched_of_a_claim_is_taken_off_once(root: FakeRoot) -> None:
    root.holds(1 * GIB)
    memory = root.memory
    free = memory.state().available
    with memory.claim(3 * GIB):
        root.holds(3 * GIB)
        root.available(40 * GIB - 2 * GIB)
        with memory.claim(free - 3 * GIB), pytest.raises(OutOfMemory), memory.claim(1):
            pass
        with pytest.raises(OutOfMemory), memory.claim(free - 3 * GIB + 1):
            pass
    root.holds(4 * GIB)
    root.available(37 * GIB)
    with memory.claim(free - 3 * GIB), pytest.raises(OutOfMemory), memory.claim(1):
        pass


def test_claims_at_once_never_exceed_what_is_there(root: FakeRoot) -> None:
    memory = root.memory
    part = memory.state().available // 5
    begin, end = threading.Barrier(16), threading.Barrier(16)

    def claim(_: int) -> bool:
        begin.wait()
        try:
            with memory.claim(part):
                end.wait()
                return True
        except OutOfMemory:
            end.wait()
            return False

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(claim, range(16))) == 5
    assert memory.state().available >= 5 * part
