"""Locked host memory: really there, locked once, and given back whole whatever fails."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.memory import cpu, host
from engine.memory.budget import Budget
from engine.memory.cpu import CpuArena
from engine.memory.driver import DriverError
from engine.memory.host import LockedMemory
from engine.types import DeviceError, OutOfMemory
from tests.engine.memory.fake_driver import FakeDriver
from tests.engine.memory.roots import FakeRoot
from tests.engine.memory.test_arena import OldKernel, smaps

MIB = 2**20

PATIENCE = 10.0
"""Seconds that threads wait for each other."""


@pytest.fixture
def driver() -> Iterator[FakeDriver]:
    fake = FakeDriver()
    yield fake
    fake.assert_clean()


def test_it_is_there_before_it_is_locked_and_counted_until_it_is_closed(driver: FakeDriver) -> None:
    budget = Budget()
    memory = LockedMemory(driver, 5 * MIB, budget=budget)
    assert (memory.size, budget.used) == (6 * MIB, 6 * MIB)
    assert memory.tensor.data_ptr() == memory.address
    assert len(memory.tensor) == memory.size
    mapping = smaps(memory.address)
    assert int(mapping["Rss"].split()[0]) >= 6 * 1024
    assert "hg" in mapping["VmFlags"].split(), "huge pages are advised"
    assert driver.calls == [("make_current",), ("host_register", memory.address, 6 * MIB)]
    memory.close()
    assert budget.used == 0
    assert driver.names == ["host_register", "host_unregister"]
    assert "Rss" not in smaps(memory.address)
    memory.close()


def test_it_is_unlocked_on_whatever_thread(driver: FakeDriver) -> None:
    memory = LockedMemory(driver, MIB)
    thread = threading.Thread(target=memory.close)
    thread.start()
    thread.join()


def test_several_threads_take_every_part_once(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    parts: list[tuple[int, int]] = []
    threads: set[str] = set()
    begin = threading.Barrier(2, timeout=PATIENCE)
    real = CpuArena.populate

    def populate(self: CpuArena, offset: int, length: int) -> None:
        parts.append((offset, length))
        threads.add(threading.current_thread().name)
        if offset < 4 * MIB:
            begin.wait()
        real(self, offset, length)

    monkeypatch.setattr(CpuArena, "populate", populate)
    monkeypatch.setattr(host, "_PART", 2 * MIB)
    LockedMemory(driver, 10 * MIB).close()
    assert sorted(parts) == [(at * MIB, 2 * MIB) for at in range(0, 10, 2)]
    assert len(threads) >= 2


def test_ram_that_is_not_there_is_not_touched(driver: FakeDriver, tmp_path: Path) -> None:
    memory = FakeRoot(tmp_path).memory
    most = memory.state().available
    with memory.claim(most - MIB), pytest.raises(OutOfMemory):
        LockedMemory(driver, 2 * MIB, memory=memory)
    assert driver.calls == []
    assert memory.state().available == most


def mappings() -> int:
    return len(Path("/proc/self/maps").read_text().splitlines())


def test_ram_that_runs_out_while_it_is_taken(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = Budget()
    monkeypatch.setattr(cpu, "_libc", OldKernel(cpu._libc, errno.ENOMEM))
    before = mappings()
    with pytest.raises(OutOfMemory):
        LockedMemory(driver, 2 * MIB, budget=budget)
    assert (budget.used, driver.names) == (0, [])
    assert mappings() <= before


@pytest.mark.parametrize(
    ("error", "seen"),
    [
        ("CUDA_ERROR_OUT_OF_MEMORY", OutOfMemory),
        ("CUDA_ERROR_INVALID_VALUE", DriverError),
        ("CUDA_ERROR_ILLEGAL_ADDRESS", DeviceError),
    ],
)
def test_memory_that_cannot_be_locked_is_given_back(
    driver: FakeDriver, error: str, seen: type[Exception]
) -> None:
    budget = Budget()
    driver.fail("host_register", error=error)
    before = mappings()
    with pytest.raises(seen):
        LockedMemory(driver, 2 * MIB, budget=budget)
    assert budget.used == 0
    assert mappings() <= before
    LockedMemory(driver, 2 * MIB, budget=budget).close()


def test_memory_that_cannot_be_unlocked_is_kept(driver: FakeDriver) -> None:
    """The driver may still let the device read it."""
    budget = Budget()
    memory = LockedMemory(driver, 2 * MIB, budget=budget)
    driver.fail("host_unregister")
    with pytest.raises(DriverError):
        memory.close()
    assert budget.used == 2 * MIB
    memory.close()
    assert budget.used == 0
