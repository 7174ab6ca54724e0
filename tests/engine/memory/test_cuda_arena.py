"""An arena on a CUDA device: which calls it makes, and what it gives back when one of them fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
import torch

from engine.memory.budget import Budget
from engine.memory.cuda import CudaArena
from engine.memory.driver import DriverError
from engine.types import DeviceError, EngineError, OutOfMemory
from tests.engine.memory.fake_driver import FRESH, GRANULARITY, FakeDriver

G = GRANULARITY


@pytest.fixture
def driver() -> Iterator[FakeDriver]:
    fake = FakeDriver(memory=16 * G)
    yield fake
    fake.assert_clean()


def make_arena(
    driver: FakeDriver,
    size: int = 8 * G,
    granularity: int | None = None,
    *,
    chunk: int = 2 * G,
    budget: Budget | None = None,
) -> CudaArena:
    return CudaArena(driver, size, granularity, make_tensor=driver.tensor, budget=budget, chunk=chunk)


def calls_of(driver: FakeDriver, act: Callable[[], None]) -> list[tuple[object, ...]]:
    """Without those that make the context current."""
    driver.calls.clear()
    act()
    return [call for call in driver.calls if call[0] != "make_current"]


def commit(arena: CudaArena, offset: int, length: int, fill: int | None = None) -> None:
    with arena.commit(offset, length):
        if fill is not None:
            arena.tensor[offset : offset + length].fill_(fill)


def test_the_calls_of_a_life_in_their_order(driver: FakeDriver) -> None:
    arena = make_arena(driver, 8 * G - 5)
    base = arena.address
    assert driver.calls == [("make_current",), ("allocation_granularity",), ("address_reserve", 8 * G)]
    assert (arena.size, arena.granularity, arena.tensor.data_ptr()) == (8 * G, G, base)
    first = max(driver.handles, default=0xA000 - 1) + 1
    assert calls_of(driver, lambda: commit(arena, 0, 5 * G)) == [
        ("mem_create", 2 * G),
        ("mem_map", base, 2 * G, first),
        ("mem_create", 2 * G),
        ("mem_map", base + 2 * G, 2 * G, first + 1),
        ("mem_create", G),
        ("mem_map", base + 4 * G, G, first + 2),
        ("mem_set_access", base, 5 * G),
    ]
    assert calls_of(driver, lambda: arena.release(0, 5 * G)) == [
        ("mem_unmap", base, 2 * G),
        ("mem_release", first),
        ("mem_unmap", base + 2 * G, 2 * G),
        ("mem_release", first + 1),
        ("mem_unmap", base + 4 * G, G),
        ("mem_release", first + 2),
    ]
    assert calls_of(driver, arena.close) == [("address_free", base, 8 * G)]


def test_pieces_are_cut_where_chunks_begin(driver: FakeDriver) -> None:
    arena = make_arena(driver, 12 * G, chunk=4 * G)
    assert arena.pieces(0, 12 * G) == [(0, 4 * G), (4 * G, 4 * G), (8 * G, 4 * G)]
    assert arena.pieces(3 * G, 6 * G) == [(3 * G, G), (4 * G, 4 * G), (8 * G, G)]
    assert arena.pieces(5 * G, 2 * G) == [(5 * G, 2 * G)]
    assert arena.pieces(4 * G, 0) == []
    arena.close()


def test_a_granularity_that_was_asked_for_is_that_of_releases(driver: FakeDriver) -> None:
    arena = make_arena(driver, 6 * G, G + 1)
    assert (arena.granularity, arena.size) == (2 * G, 6 * G)
    commit(arena, 0, 6 * G, fill=3)
    arena.release(2 * G, 2 * G)
    assert (arena.committed, driver.used) == (4 * G, 4 * G)
    assert (arena.tensor[: 2 * G] == 3).all()
    assert (arena.tensor[4 * G :] == 3).all()
    arena.close()


def test_contents_go_with_the_memory_and_the_address_stays(driver: FakeDriver) -> None:
    arena = make_arena(driver)
    view = arena.tensor[G : 3 * G].view(torch.float32)
    numbers = torch.randn(len(view), generator=torch.Generator().manual_seed(1))
    for _ in range(3):
        with arena.commit(0, 8 * G):
            assert (arena.tensor == FRESH).all(), "the memory is new each time"
            view.copy_(numbers)
        assert torch.equal(view, numbers)
        arena.release(0, 8 * G)
        driver.assert_idle()
    arena.close()


def test_several_ranges_at_once(driver: FakeDriver) -> None:
    budget = Budget()
    arena = make_arena(driver, budget=budget)
    with arena.commit_all([(0, G), (2 * G, 3 * G), (7 * G, 0)]):
        assert (arena.committed, budget.used, driver.used) == (4 * G,) * 3
    arena.release(2 * G, 3 * G)
    assert (arena.committed, budget.used, driver.used) == (G,) * 3
    arena.close()
    assert budget.used == 0


@pytest.mark.parametrize(("offset", "length"), [(0, G), (G, 2 * G), (G, G), (4 * G, 2 * G), (0, 3 * G)])
def test_a_part_of_a_piece_is_not_released(driver: FakeDriver, offset: int, length: int) -> None:
    arena = make_arena(driver)
    commit(arena, 0, 4 * G)
    with pytest.raises(ValueError, match="as a whole"):
        arena.release(offset, length)
    assert arena.committed == 4 * G
    arena.close()


def test_closing_releases_first_and_twice_is_harmless(driver: FakeDriver) -> None:
    budget = Budget()
    arena = make_arena(driver, budget=budget)
    commit(arena, 0, 4 * G)
    arena.close()
    driver.assert_clean()
    assert (arena.committed, budget.used) == (0, 0)
    assert calls_of(driver, arena.close) == []


def test_a_body_that_fails_gives_back(driver: FakeDriver) -> None:
    budget = Budget()
    arena = make_arena(driver, budget=budget)
    commit(arena, 6 * G, G, fill=5)
    with pytest.raises(KeyError), arena.commit_all([(0, 3 * G), (4 * G, G)]):
        driver.lose_context()
        raise KeyError
    assert (arena.committed, budget.used, driver.used) == (G,) * 3
    assert (arena.tensor[6 * G : 7 * G] == 5).all()
    arena.close()


def test_a_device_that_is_full_says_how_much_it_has(driver: FakeDriver) -> None:
    arena, other = make_arena(driver), make_arena(driver, 11 * G)
    commit(other, 0, 11 * G)
    with pytest.raises(OutOfMemory) as caught, arena.commit(0, 8 * G):
        raise AssertionError("the body must not run")
    assert (caught.value.needed, caught.value.available) == (8 * G, 5 * G)
    assert (arena.committed, driver.used) == (0, 11 * G)
    other.close()
    commit(arena, 0, 8 * G)
    arena.close()


def test_a_budget_that_is_spent_is_seen_before_the_driver_is_asked(driver: FakeDriver) -> None:
    budget = Budget(4 * G)
    arena = make_arena(driver, budget=budget)
    driver.calls.clear()
    with pytest.raises(OutOfMemory), arena.commit(0, 5 * G):
        raise AssertionError("the body must not run")
    assert driver.names == []
    commit(arena, 0, 4 * G)
    arena.close()


def test_every_thread_gets_the_context(driver: FakeDriver) -> None:
    arena = make_arena(driver)
    for act in (lambda: commit(arena, 0, 4 * G), lambda: arena.release(0, 4 * G), arena.close):
        with ThreadPoolExecutor(1) as another:
            another.submit(act).result()
    driver.assert_clean()


def test_what_is_committed_is_not_committed_again(driver: FakeDriver) -> None:
    """A real driver refuses it too; what was there stays."""
    arena = make_arena(driver)
    commit(arena, 2 * G, 2 * G, fill=4)
    with pytest.raises(AssertionError, match="mapped twice"), arena.commit(0, 8 * G):
        raise AssertionError("the body must not run")
    driver.misuses.clear()
    assert (arena.committed, driver.used) == (2 * G, 2 * G)
    assert (arena.tensor[2 * G : 4 * G] == 4).all()
    arena.close()


# Every call of a life fails once, in turn.


def one_life(driver: FakeDriver, budget: Budget) -> None:
    """Two arenas that commit and release; whatever fails, both are closed."""
    first = make_arena(driver, budget=budget)
    try:
        second = make_arena(driver, 4 * G, 2 * G, budget=budget)
        try:
            commit(first, 0, 5 * G, fill=1)
            commit(second, 2 * G, 2 * G, fill=2)
            first.release(0, 5 * G)
            with second.commit_all([(0, 2 * G)]), first.commit_all([(0, G), (2 * G, 2 * G)]):
                pass
        finally:
            close(second)
    finally:
        close(first)


def close(arena: CudaArena) -> None:
    """Once more where a call failed: what is left is still known."""
    with suppress(EngineError):
        arena.close()
    arena.close()


@pytest.mark.parametrize("error", ["CUDA_ERROR_INVALID_VALUE", "CUDA_ERROR_OUT_OF_MEMORY"])
def test_nothing_leaks_whichever_call_fails(error: str) -> None:
    whole = FakeDriver(memory=16 * G)
    one_life(whole, Budget())
    whole.assert_clean()
    assert set(whole.names) >= {
        "address_reserve",
        "mem_create",
        "mem_set_access",
        "mem_unmap",
        "address_free",
    }
    for index, (call, *_) in enumerate(whole.calls):
        assert_survives(index, call, error)


def assert_survives(index: int, call: str, error: str) -> None:
    """A life in which this call fails."""
    driver, budget = FakeDriver(memory=16 * G), Budget()
    driver.failing = lambda number, name: error if number == index else None
    try:
        one_life(driver, budget)
    except OutOfMemory:
        assert error == "CUDA_ERROR_OUT_OF_MEMORY"
    except DriverError as failure:
        assert failure.call == call
    except DeviceError:
        assert call in ("make_current", "mem_unmap", "mem_release")
    assert driver.calls[index][0] == call
    # A release has no second try: that memory is lost, and stays counted.
    assert len(driver.handles) == (call == "mem_release")
    assert budget.used == driver.used
    driver.handles.clear()
    driver.assert_clean()


@pytest.mark.parametrize("call", ["mem_create", "mem_map", "mem_set_access"])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_commit_that_fails_half_way_has_taken_nothing(driver: FakeDriver, call: str, number: int) -> None:
    budget = Budget()
    arena = make_arena(driver, budget=budget)
    driver.fail(call, number)
    ranges = [(0, 2 * G), (3 * G, G), (5 * G, G)]
    with pytest.raises(DriverError, match=f"{call}: CUDA_ERROR_INVALID_VALUE"), arena.commit_all(ranges):
        raise AssertionError("the body must not run")
    driver.assert_idle()
    assert (arena.committed, budget.used) == (0, 0)
    with arena.commit_all(ranges):
        assert arena.committed == 4 * G
    arena.close()


def test_a_tensor_that_cannot_be_made_leaves_no_range(driver: FakeDriver) -> None:
    def refuse(address: int, size: int) -> torch.Tensor:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        CudaArena(driver, G, make_tensor=refuse)


def test_a_broken_device_is_told_from_a_refused_call(driver: FakeDriver) -> None:
    arena = make_arena(driver)
    driver.fail("mem_map", error="CUDA_ERROR_ILLEGAL_ADDRESS")
    with pytest.raises(DeviceError, match="mem_map: CUDA_ERROR_ILLEGAL_ADDRESS"), arena.commit(0, G):
        raise AssertionError("the body must not run")
    arena.close()


def test_nothing_is_unmapped_before_what_is_queued_is_done(driver: FakeDriver) -> None:
    arena = CudaArena(
        driver, 8 * G, make_tensor=driver.tensor, finish=lambda: driver.calls.append(("finish",))
    )
    commit(arena, 0, 2 * G)
    assert [call[0] for call in calls_of(driver, lambda: arena.release(0, 2 * G))] == [
        "finish",
        "mem_unmap",
        "mem_release",
    ]
    assert not calls_of(driver, lambda: arena.release(0, 0))
    commit(arena, 0, 2 * G)
    assert calls_of(driver, arena.close)[0] == ("finish",)


def test_others_give_back_what_they_keep_before_the_device_is_called_full(driver: FakeDriver) -> None:
    driver.make_current()
    others = driver.mem_create(2 * G)
    kept = [driver.mem_create(6 * G), driver.mem_create(4 * G)]

    def relieve() -> None:
        driver.mem_release(kept.pop())

    arena = CudaArena(driver, 16 * G, make_tensor=driver.tensor, chunk=2 * G, relieve=relieve)
    commit(arena, 0, 8 * G, fill=3)
    assert (len(kept), arena.committed) == (1, 8 * G)
    assert (arena.tensor[: 8 * G] == 3).all()
    with pytest.raises(OutOfMemory):
        commit(arena, 8 * G, 8 * G)
    assert (len(kept), arena.committed) == (0, 8 * G)
    arena.close()
    driver.mem_release(others)


def test_what_is_wrong_is_not_tried_again(driver: FakeDriver) -> None:
    arena = CudaArena(driver, 8 * G, make_tensor=driver.tensor, relieve=lambda: pytest.fail("relieved"))
    driver.fail("mem_create")
    with pytest.raises(DriverError):
        commit(arena, 0, G)
    arena.close()
