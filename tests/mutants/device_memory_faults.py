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
from engine.memory.copies import HostCopies, HostCopy
from engine.memory.cuda import CudaArena
from engine.memory.host import LockedMemory
from engine.memory.ring import Buffer, Ring
from engine.memory.transfer import _Mapper
from engine.ring_reader import RingReader
from tests.engine import test_ring_reader
from tests.engine.memory import test_host
from tests.engine.memory.fake_driver import FakeDriver
from tests.mutants.engine_faults import Fault

FAULTS: dict[str, tuple[Fault, str]] = {}

ARENA = "memory/test_cuda_arena.py::"
RING = "memory/test_ring.py::"
COPIES = "memory/test_copies.py::"
TRANSFER = "memory/test_transfer.py::"
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


@caught_by(COPIES + "test_a_sleepers_copy_and_one_in_use_are_never_taken")
def a_copy_in_use_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HostCopies, "claim", lambda self, copy: copy.memory is not None)


@caught_by(COPIES + "test_the_spare_one_that_was_unused_for_longest_goes_first_and_no_more_than_needed")
def the_copy_used_last_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HostCopies, "_give_back", lambda self: self._spare.pop().close())


@caught_by(COPIES + "test_nothing_is_given_back_that_would_not_be_enough")
def copies_are_given_back_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    real = HostCopies.find_room

    def find_room(self: HostCopies, take: Any) -> Any:
        while self._spare:
            self._give_back()
        return real(self, take)

    monkeypatch.setattr(HostCopies, "find_room", find_room)


@caught_by(COPIES + "test_what_is_set_aside_is_no_copys")
def nothing_is_set_aside_for_the_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    real = HostCopies.__init__
    monkeypatch.setattr(HostCopies, "__init__", lambda self, driver, set_aside: real(self, driver))


@caught_by(COPIES + "test_a_lower_limit_takes_what_is_spare")
def a_lower_limit_holds_for_later_copies_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HostCopies, "limit", lambda self, limit: setattr(self.budget, "limit", limit))


@caught_by("test_cuda_device.py::test_a_spare_copy_makes_room_for_that_of_a_sleeper")
def copies_of_the_awake_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HostCopies, "spare", lambda self, copy: None)


@caught_by("test_cuda_device.py::test_a_light_sleep_copies_nothing_if_it_was_done[True]")
def a_copy_is_made_again_for_every_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HostCopies, "claim", lambda self, copy: copy.close())


@caught_by("test_cuda_device.py::test_a_first_wake_that_fails_half_way_gives_back_the_copy_too")
def a_failed_read_leaves_its_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HostCopy, "close", lambda self: None)


@caught_by(READER + "test_files_are_read_while_memory_is_mapped")
def all_is_mapped_before_the_first_byte_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_ring_reader, "PATIENCE", 0.2)
    monkeypatch.setattr(_Mapper, "start", _Mapper.run)
    monkeypatch.setattr(_Mapper, "join", lambda self: None)


@caught_by(TRANSFER + "test_a_call_that_fails_beside_the_body_fails_who_waits_for_it")
def nobody_waits_for_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Mapper, "wait", lambda self, end: None)


@caught_by(TRANSFER + "test_what_came_beside_a_body_that_fails_goes_and_no_more_comes")
def mapping_goes_on_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    never = property(lambda self: False, lambda self, value: None)
    monkeypatch.setattr(_Mapper, "_stopped", never, raising=False)
