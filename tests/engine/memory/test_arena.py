"""An arena keeps its address; memory comes and goes behind it."""

from __future__ import annotations

import ctypes
import errno
from pathlib import Path
from typing import Any

import pytest

from engine.memory import cpu
from engine.memory.budget import Budget
from engine.memory.cpu import CpuArena
from engine.memory.sizes import HUGE_PAGE, round_up
from engine.types import OutOfMemory
from tests.engine.memory.roots import FakeRoot

MIB = 2**20


def smaps(address: int) -> dict[str, str]:
    """The kernel's own account of the mapping at ``address``."""
    found: dict[str, str] = {}
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        head = line.split()[0]
        if "-" in head and not head.endswith(":"):
            begin, end = (int(part, 16) for part in head.split("-"))
            inside = begin <= address < end
            if inside:
                found["permissions"] = line.split()[1]
        elif inside:
            name, _, value = line.partition(":")
            found[name] = value.strip()
    return found


def test_the_range_is_private_aligned_and_empty() -> None:
    arena = CpuArena(5 * MIB)
    assert arena.size == 6 * MIB
    assert arena.address % HUGE_PAGE == 0
    assert arena.tensor.data_ptr() == arena.address
    mapping = smaps(arena.address)
    assert mapping["permissions"] == "rw-p", "shared memory would not be freed by madvise"
    assert mapping["Rss"] == "0 kB"
    arena.close()


def test_released_memory_is_gone_and_the_rest_stays() -> None:
    arena = CpuArena(8 * MIB)
    with arena.commit(0, 8 * MIB):
        arena.tensor.fill_(7)
    assert int(smaps(arena.address)["Rss"].split()[0]) >= 8 * 1024
    arena.release(2 * MIB, 4 * MIB)
    assert arena.committed == 4 * MIB
    assert int(smaps(arena.address)["Rss"].split()[0]) <= 4 * 1024
    assert not arena.tensor[2 * MIB : 6 * MIB].any()
    assert (arena.tensor[: 2 * MIB] == 7).all()
    assert (arena.tensor[6 * MIB :] == 7).all()
    with arena.commit(2 * MIB, 4 * MIB):
        arena.tensor[2 * MIB : 6 * MIB].fill_(9)
    assert arena.committed == 8 * MIB
    arena.close()
    assert arena.committed == 0


def test_a_commit_whose_body_fails_gives_back() -> None:
    arena = CpuArena(4 * MIB)
    with pytest.raises(KeyError), arena.commit(0, 4 * MIB):
        arena.tensor.fill_(1)
        raise KeyError
    assert arena.committed == 0
    assert not arena.tensor.any()
    arena.close()


def test_a_commit_that_is_refused_has_taken_nothing(tmp_path: Path) -> None:
    memory = FakeRoot(tmp_path).memory
    arena = CpuArena(2 * MIB, memory=memory)
    everything = memory.state().available
    with memory.claim(everything - MIB), pytest.raises(OutOfMemory), arena.commit(0, 2 * MIB):
        raise AssertionError("the body must not run")
    assert arena.committed == 0
    assert memory.state().available == everything
    arena.close()


def test_closing_twice_is_harmless() -> None:
    arena = CpuArena(MIB)
    address = arena.address
    arena.close()
    arena.close()
    assert "Rss" not in smaps(address)


def test_a_range_far_beyond_ram_costs_nothing() -> None:
    arena = CpuArena(2**41)
    with arena.commit(2**40, 2 * MIB):
        arena.tensor[2**40] = 1
    assert arena.committed == 2 * MIB
    arena.close()


@pytest.mark.parametrize(("size", "up"), [(0, 0), (1, 16), (16, 16), (17, 32)])
def test_round_up(size: int, up: int) -> None:
    assert round_up(size, 16) == up


class OldKernel:
    """libc on a kernel that answers one advice with an error."""

    def __init__(self, libc: Any, error: int) -> None:
        self._libc = libc
        self._error = error

    def madvise(self, address: int, length: int, advice: int) -> int:
        if advice != cpu._MADV_POPULATE_WRITE:
            return int(self._libc.madvise(address, length, advice))
        ctypes.set_errno(self._error)
        return -1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._libc, name)


def test_a_kernel_that_cannot_populate_has_its_pages_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    arena = CpuArena(4 * MIB)
    monkeypatch.setattr(cpu, "_libc", OldKernel(cpu._libc, errno.EINVAL))
    with arena.commit(0, 4 * MIB):
        arena.populate(0, 4 * MIB)
    assert int(smaps(arena.address)["Rss"].split()[0]) >= 4 * 1024
    arena.close()


def test_a_kernel_that_has_no_pages_is_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = Budget(4 * MIB)
    arena = CpuArena(4 * MIB, budget=budget)
    with monkeypatch.context() as scarce, pytest.raises(OutOfMemory):
        scarce.setattr(cpu, "_libc", OldKernel(cpu._libc, errno.ENOMEM))
        with arena.commit(0, 4 * MIB):
            arena.populate(0, 4 * MIB)
    assert (arena.committed, budget.used) == (0, 0)
    assert smaps(arena.address)["Rss"] == "0 kB"
    with arena.commit(0, 4 * MIB):
        arena.populate(0, 4 * MIB)
    arena.close()
