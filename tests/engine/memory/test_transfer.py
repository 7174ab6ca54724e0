"""Weights to locked memory and back: the same bytes, mapped and copied at once, all or nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from engine.memory.budget import Budget
from engine.memory.cuda import CudaArena
from engine.memory.driver import DriverError
from engine.memory.host import LockedMemory
from engine.memory.transfer import _Mapper, commit_beside, commit_from, copy_out, copy_stream
from engine.types import DeviceError, OutOfMemory
from tests.engine.memory.fake_driver import GRANULARITY as G
from tests.engine.memory.fake_driver import FakeDriver

LENGTH = 7 * G


class Scene:
    """An arena of four pieces, and locked memory with something in it."""

    def __init__(self, *, lazy: bool = True) -> None:
        self.driver, self.budget = FakeDriver(memory=12 * G, lazy=lazy), Budget()
        make = self.driver.tensor
        self.arena = CudaArena(self.driver, 8 * G, make_tensor=make, budget=self.budget, chunk=2 * G)
        self.host = LockedMemory(self.driver, LENGTH)
        generator = torch.Generator().manual_seed(3)
        self.bytes = torch.randint(0, 256, (LENGTH,), generator=generator, dtype=torch.uint8)
        self.host.tensor[:LENGTH] = self.bytes
        self.driver.calls.clear()

    def wake(self) -> None:
        with commit_from(self.driver, self.arena, self.host, LENGTH):
            assert torch.equal(self.arena.tensor[:LENGTH], self.bytes), "it is there when the body begins"

    def assert_nothing_taken(self) -> None:
        self.driver.assert_idle()
        assert (self.arena.committed, self.budget.used) == (0, 0)
        assert not self.driver.streams.open

    def close(self) -> None:
        self.arena.close()
        self.host.close()
        self.driver.assert_clean()


@pytest.fixture(params=["lazy", "eager"])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    scene = Scene(lazy=request.param == "lazy")
    yield scene
    scene.close()


def test_asleep_and_awake_again_and_again(scene: Scene) -> None:
    for _ in range(3):
        scene.wake()
        assert scene.arena.committed == LENGTH
        scene.arena.release(0, LENGTH)
        scene.assert_nothing_taken()


def test_a_piece_is_mapped_while_those_before_it_are_copied(scene: Scene) -> None:
    scene.wake()
    piece = ["mem_create", "mem_map", "mem_set_access", "copy_to_device"]
    assert scene.driver.names == ["stream_create", *piece * 4, "stream_synchronize", "stream_destroy"]
    copies = [call[1:4] for call in scene.driver.calls if call[0] == "copy_to_device"]
    starts = [(0, 2 * G), (2 * G, 2 * G), (4 * G, 2 * G), (6 * G, G)]
    base, source = scene.arena.address, scene.host.address
    assert copies == [(base + start, source + start, size) for start, size in starts]


def test_out_and_in(scene: Scene) -> None:
    with scene.arena.commit(0, 8 * G):
        scene.arena.tensor.fill_(5)
    copy_out(scene.driver, scene.arena, scene.host, LENGTH)
    assert (scene.host.tensor[:LENGTH] == 5).all()
    scene.arena.release(0, 8 * G)
    with commit_from(scene.driver, scene.arena, scene.host, LENGTH):
        assert (scene.arena.tensor[:LENGTH] == 5).all()


def test_a_body_that_fails_gives_back(scene: Scene) -> None:
    with pytest.raises(KeyError), commit_from(scene.driver, scene.arena, scene.host, LENGTH):
        raise KeyError
    scene.assert_nothing_taken()
    scene.wake()


def test_a_device_that_runs_full_half_way_says_what_all_would_take(scene: Scene) -> None:
    other = CudaArena(scene.driver, 7 * G, make_tensor=scene.driver.tensor)
    with other.commit(0, 7 * G), pytest.raises(OutOfMemory) as caught:
        scene.wake()
    assert (caught.value.needed, caught.value.available) == (LENGTH, 5 * G)
    other.close()
    scene.assert_nothing_taken()
    scene.wake()


def test_all_or_nothing_whichever_call_fails(scene: Scene) -> None:
    scene.wake()
    calls = [call for call, *_ in scene.driver.calls]
    scene.arena.release(0, LENGTH)
    for index, call in enumerate(calls):
        if call not in ("stream_synchronize", "stream_destroy"):  # which fail with the device only
            scene.driver.calls.clear()
            scene.driver.failing = lambda number, _, index=index: (
                "CUDA_ERROR_INVALID_VALUE" if number == index else None
            )
            with pytest.raises(DriverError, match=f"{call}: CUDA_ERROR_INVALID_VALUE"):
                scene.wake()
            scene.assert_nothing_taken()


def test_a_device_that_breaks_while_it_copies() -> None:
    """Every call fails from then on, those that would give back too; what is told is that it broke."""
    scene = Scene()
    scene.driver.breaks("stream_synchronize", "CUDA_ERROR_ECC_UNCORRECTABLE")
    with pytest.raises(DeviceError, match="CUDA_ERROR_ECC_UNCORRECTABLE"):
        scene.wake()
    with pytest.raises(DeviceError):
        scene.arena.close()
    with pytest.raises(DeviceError):
        scene.host.close()
    assert not scene.driver.misuses


def test_a_stream_that_cannot_be_made(scene: Scene) -> None:
    scene.driver.fail("stream_create")
    with pytest.raises(DriverError), copy_stream(scene.driver):
        raise AssertionError("the body must not run")
    scene.assert_nothing_taken()


def test_memory_comes_beside_the_body_and_stays_after_it(scene: Scene) -> None:
    with commit_beside(scene.arena, LENGTH) as mapped:
        for end in (1, 2 * G, 5 * G, LENGTH):
            mapped(end)
            assert scene.arena.committed >= end
            scene.arena.tensor[:end].fill_(7)
    assert (scene.arena.committed, scene.budget.used) == (LENGTH, LENGTH)
    assert scene.driver.names == ["mem_create", "mem_map", "mem_set_access"] * 4
    scene.arena.release(0, LENGTH)


def test_what_came_beside_a_body_that_fails_goes_and_no_more_comes(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed, real = threading.Event(), FakeDriver.mem_create

    def mem_create(self: FakeDriver, size: int) -> int:
        assert not self.mappings or failed.wait(10)
        return real(self, size)

    stop = _Mapper.stop

    def stopped(self: _Mapper) -> None:
        self._stopped = True
        failed.set()
        stop(self)

    monkeypatch.setattr(FakeDriver, "mem_create", mem_create)
    monkeypatch.setattr(_Mapper, "stop", stopped)
    with pytest.raises(KeyError), commit_beside(scene.arena, LENGTH) as mapped:
        mapped(2 * G)
        raise KeyError
    scene.assert_nothing_taken()
    assert scene.driver.names.count("mem_create") == 2, "that which was under way"


@pytest.mark.parametrize("call", ["mem_create", "mem_map", "mem_set_access"])
@pytest.mark.parametrize("number", [1, 3])
def test_a_call_that_fails_beside_the_body_fails_who_waits_for_it(
    scene: Scene, call: str, number: int
) -> None:
    scene.driver.fail(call, number)
    reached = []
    with pytest.raises(DriverError, match=call), commit_beside(scene.arena, LENGTH) as mapped:
        for end in (2 * G, 4 * G, 6 * G):
            mapped(end)
            reached.append(end)
    assert reached == [2 * G, 4 * G][: number - 1]
    scene.assert_nothing_taken()
    scene.wake()


def test_a_device_that_runs_full_beside_the_body(scene: Scene) -> None:
    other = CudaArena(scene.driver, 7 * G, make_tensor=scene.driver.tensor)
    beside = commit_beside(scene.arena, LENGTH)
    with other.commit(0, 7 * G), pytest.raises(OutOfMemory) as caught, beside as mapped:
        mapped(LENGTH)
    assert (caught.value.needed, caught.value.available) == (LENGTH, 5 * G)
    other.close()
    scene.assert_nothing_taken()
