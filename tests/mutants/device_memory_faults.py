"""Planted faults in the memory of a CUDA device, and the test that must catch each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from engine import direct
from engine.memory import host, parallel
from engine.memory.budget import Budget
from engine.memory.cuda import CudaArena
from engine.memory.host import LockedMemory
from engine.memory.ring import Buffer, Ring
from engine.ring_reader import RingReader
from tests.engine.memory import test_host
from tests.engine.memory.fake_driver import FakeDriver
from tests.mutants.engine_faults import Fault

FAULTS: dict[str, tuple[Fault, str]] = {}

ARENA = "memory/test_cuda_arena.py::"
RING = "memory/test_ring.py::"
READER = "test_ring_reader.py::"


def caught_by(test: str) -> Any:
    def plant(fault: Fault) -> Fault:
        FAULTS[fault.__name__] = (fault, f"tests/engine/{test}")
        return fault

    return plant


def leave_out(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """The arena never makes this call."""
    monkeypatch.setattr(FakeDriver, call, lambda *args: None)


@caught_by(READER + "test_the_same_bytes_as_the_reader_into_ram")
def access_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out(monkeypatch, "mem_set_access")


@caught_by(ARENA + "test_contents_go_with_the_memory_and_the_address_stays")
def memory_is_unmapped_and_never_released(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out(monkeypatch, "mem_release")


@caught_by(ARENA + "test_closing_releases_first_and_twice_is_harmless")
def a_range_is_freed_with_memory_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CudaArena, "release", lambda self, offset, length: None)


@caught_by(ARENA + "test_a_commit_that_fails_half_way_has_taken_nothing")
def a_commit_that_fails_keeps_what_it_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CudaArena, "_unmap", lambda self, start: None)


@caught_by(ARENA + "test_nothing_leaks_whichever_call_fails")
def a_commit_that_fails_stays_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Budget, "give", lambda self, size: None)


@caught_by(ARENA + "test_every_thread_gets_the_context")
def the_context_is_made_current_once(monkeypatch: pytest.MonkeyPatch) -> None:
    real = FakeDriver.make_current

    def make_current(self: FakeDriver) -> None:
        if not self._current:
            real(self)

    monkeypatch.setattr(FakeDriver, "make_current", make_current)


@caught_by(ARENA + "test_pieces_are_cut_where_chunks_begin")
def a_range_is_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CudaArena, "pieces", lambda self, offset, length: [(offset, length)])


@caught_by("memory/test_host.py::test_memory_that_cannot_be_unlocked_is_kept")
def locked_memory_is_unmapped_before_it_is_unlocked(monkeypatch: pytest.MonkeyPatch) -> None:
    def close(self: LockedMemory) -> None:
        self._arena.close()
        self._driver.make_current()
        self._driver.host_unregister(self.address)

    monkeypatch.setattr(LockedMemory, "close", close)


@caught_by("memory/test_host.py::test_it_is_there_before_it_is_locked_and_counted_until_it_is_closed")
def memory_is_locked_before_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LockedMemory, "_populate", lambda self: None)


@caught_by("memory/test_host.py::test_several_threads_take_every_part_once")
def one_thread_takes_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_host, "PATIENCE", 0.2)
    monkeypatch.setattr(host, "run_all", lambda jobs: [job() for job in jobs])


@caught_by("memory/test_parallel.py::test_a_failure_ends_the_rest_and_waits_for_what_is_under_way")
def a_failure_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unstoppable(parallel.deque):  # type: ignore[type-arg]
        def clear(self) -> None: ...

    monkeypatch.setattr(parallel, "deque", Unstoppable)


@caught_by(RING + "test_a_buffer_is_filled_again_when_it_was_copied")
def a_buffer_is_filled_before_it_was_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeDriver, "event_synchronize", lambda self, event: None)


@caught_by(RING + "test_a_body_that_fails_gives_its_buffer_back")
def a_buffer_is_lost_with_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def buffer(self: Ring) -> Iterator[Buffer]:
        one = self._free.get(timeout=1)
        self._driver.event_synchronize(one.event)
        yield one
        self._driver.event_record(one.event, self._stream)
        self._free.put(one)

    monkeypatch.setattr(Ring, "buffer", buffer)


@caught_by(READER + "test_the_same_bytes_as_the_reader_into_ram")
def a_read_ends_before_its_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ring, "flush", lambda self: None)


@caught_by(READER + "test_an_error_of_the_disk")
def a_read_that_fails_leaves_its_copies_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(self: RingReader, work: Any) -> None:
        parallel.run_all(work)
        self._ring.flush()

    monkeypatch.setattr(RingReader, "_run", run)


@caught_by("test_direct.py::test_any_piece")
def a_short_direct_read_is_taken_for_a_whole_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(fd: int, buffer: memoryview, offset: int, least: int, alignment: int) -> None:
        os.preadv(fd, [buffer[: -(-least // alignment) * alignment]], offset)

    monkeypatch.setattr(direct, "_read", read)


@caught_by("test_direct.py::test_a_file_that_was_replaced_is_still_the_one_that_is_open")
def a_file_is_opened_again_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.direct.os.path.samestat", lambda one, other: True)


@caught_by(ARENA + "test_a_broken_device_is_told_from_a_refused_call")
def a_broken_device_is_a_refused_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.memory.driver._STICKY", frozenset())
