"""The ring of locked buffers: nothing is overwritten before it was copied, nothing is left when it closes."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from engine.memory.budget import Budget
from engine.memory.cuda import CudaArena
from engine.memory.driver import DriverError
from engine.memory.parallel import run_all
from engine.memory.ring import Ring
from engine.types import DeviceError, OutOfMemory
from tests.engine.memory.fake_driver import GRANULARITY as G
from tests.engine.memory.fake_driver import FakeDriver

KIB = 1024


@pytest.fixture(params=["lazy", "eager"])
def driver(request: pytest.FixtureRequest) -> Iterator[FakeDriver]:
    fake = FakeDriver(lazy=request.param == "lazy")
    yield fake
    fake.assert_clean()


@pytest.fixture
def arena(driver: FakeDriver) -> Iterator[CudaArena]:
    arena = CudaArena(driver, 4 * G, make_tensor=driver.tensor)
    with arena.commit(0, 4 * G):
        yield arena
    arena.close()


def fill(ring: Ring, arena: CudaArena, at: int, value: int) -> None:
    """A KiB of the arena."""
    with ring.buffer() as buffer:
        buffer.tensor[:KIB].fill_(value)
        ring.send(buffer, 0, KIB, arena.address + at * KIB)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_buffer_is_filled_again_when_it_was_copied(
    driver: FakeDriver, arena: CudaArena, count: int
) -> None:
    ring = Ring(driver, count, 4 * KIB)
    for at in range(20):
        fill(ring, arena, at, at)
    ring.flush()
    for at in range(20):
        assert (arena.tensor[at * KIB : (at + 1) * KIB] == at).all()
    ring.close()


def test_buffers_are_of_whole_pages_and_apart(driver: FakeDriver) -> None:
    ring = Ring(driver, 3, 5000)
    with ring.buffer() as one, ring.buffer() as two, ring.buffer() as three:
        addresses = sorted(buffer.address for buffer in (one, two, three))
        for buffer in (one, two, three):
            assert buffer.tensor.data_ptr() == buffer.address
            assert buffer.address % 4096 == 0
            assert len(buffer.tensor) == len(buffer.view) == ring.buffer_size == 8192
        assert addresses[2] - addresses[1] == addresses[1] - addresses[0] == 8192
    ring.close()


def test_whoever_finds_no_buffer_waits_for_one(driver: FakeDriver) -> None:
    ring = Ring(driver, 1, KIB)
    has, waited = threading.Event(), threading.Event()

    def wait() -> None:
        has.wait(10)
        with ring.buffer():
            waited.set()

    thread = threading.Thread(target=wait)
    thread.start()
    with ring.buffer():
        has.set()
        assert not waited.wait(0.05)
    assert waited.wait(10)
    thread.join()
    ring.close()


def test_threads_share_it(driver: FakeDriver, arena: CudaArena) -> None:
    ring = Ring(driver, 3, KIB)
    run_all((lambda at=at: fill(ring, arena, at, at % 251) for at in range(200)), 8)
    ring.flush()
    assert all((arena.tensor[at * KIB : (at + 1) * KIB] == at % 251).all() for at in range(200))
    ring.close()


def test_a_body_that_fails_gives_its_buffer_back(driver: FakeDriver, arena: CudaArena) -> None:
    ring = Ring(driver, 1, KIB)
    with pytest.raises(KeyError), ring.buffer() as buffer:
        ring.send(buffer, 0, KIB, arena.address)
        raise KeyError
    fill(ring, arena, 0, 3)
    ring.flush()
    assert (arena.tensor[:KIB] == 3).all()
    ring.close()


def test_closing_waits_for_what_was_sent_and_twice_is_harmless(driver: FakeDriver, arena: CudaArena) -> None:
    budget = Budget()
    ring = Ring(driver, 2, KIB, budget=budget)
    assert budget.used == 2 * 2**20
    fill(ring, arena, 0, 9)
    thread = threading.Thread(target=ring.close)
    thread.start()
    thread.join()
    assert (arena.tensor[:KIB] == 9).all()
    assert budget.used == 0
    driver.calls.clear()
    ring.close()
    assert driver.calls == []


@pytest.mark.parametrize(
    ("call", "number"), [("host_register", 1), ("stream_create", 1), ("event_create", 1), ("event_create", 3)]
)
@pytest.mark.parametrize("error", ["CUDA_ERROR_INVALID_VALUE", "CUDA_ERROR_OUT_OF_MEMORY"])
def test_a_ring_that_cannot_be_made_leaves_nothing(
    driver: FakeDriver, call: str, number: int, error: str
) -> None:
    budget = Budget()
    driver.fail(call, number, error)
    with pytest.raises((DriverError, OutOfMemory)):
        Ring(driver, 3, KIB, budget=budget)
    assert budget.used == 0
    driver.assert_clean()


@pytest.mark.parametrize("call", ["copy_to_device", "event_record", "event_synchronize"])
def test_a_call_that_fails_costs_no_buffer(driver: FakeDriver, arena: CudaArena, call: str) -> None:
    ring = Ring(driver, 1, KIB)
    fill(ring, arena, 0, 1)
    driver.fail(call, error="CUDA_ERROR_LAUNCH_FAILED")
    with pytest.raises(DeviceError):
        fill(ring, arena, 0, 2)
    fill(ring, arena, 0, 3)
    ring.flush()
    assert (arena.tensor[:KIB] == 3).all()
    ring.close()
