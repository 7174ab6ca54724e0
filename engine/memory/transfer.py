"""Whole arenas to and from locked host memory, by copies that the device makes itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from engine.memory.cuda import CudaArena
from engine.memory.driver import Driver
from engine.memory.host import LockedMemory
from engine.types import OutOfMemory


@contextmanager
def copy_stream(driver: Driver) -> Iterator[int]:
    """A stream for copies, all of which are done when the body has ended, however it did."""
    driver.make_current()
    with ExitStack() as stack:
        stream = driver.stream_create()
        stack.callback(driver.stream_destroy, stream)
        stack.callback(driver.stream_synchronize, stream)
        yield stream


@contextmanager
def commit_from(driver: Driver, arena: CudaArena, source: LockedMemory, length: int) -> Iterator[None]:
    """Back the first ``length`` bytes with memory, and have the same bytes of ``source`` in it when the body
    begins: one piece is mapped while those before it are copied. If the body raises, the memory goes back.
    Raises OutOfMemory, having taken nothing."""
    with ExitStack() as taken:
        with copy_stream(driver) as stream:
            for offset, size in _commit_pieces(arena, length, taken):
                driver.copy_to_device(arena.address + offset, source.address + offset, size, stream)
        yield


def _commit_pieces(arena: CudaArena, length: int, taken: ExitStack) -> Iterator[tuple[int, int]]:
    """One after the other, as (offset, bytes); ``taken`` gives them back."""
    for offset, size in arena.pieces(0, length):
        try:
            taken.enter_context(arena.commit(offset, size))
        except OutOfMemory as error:
            raise OutOfMemory(length, offset + error.available) from error
        yield offset, size


@contextmanager
def commit_beside(arena: CudaArena, length: int) -> Iterator[Callable[[int], None]]:
    """Back the first ``length`` bytes with memory on a thread of its own, while the body runs. The body is
    given a function that waits until so many of them are there, and raises what stands in the way:
    OutOfMemory, DeviceError. If the body raises, all memory goes back."""
    with ExitStack() as taken:
        mapper = _Mapper(arena, length, taken)
        mapper.start()
        try:
            yield mapper.wait
        finally:
            mapper.stop()


class _Mapper(threading.Thread):
    def __init__(self, arena: CudaArena, length: int, taken: ExitStack) -> None:
        super().__init__(name="mapper")
        self._pieces = _commit_pieces(arena, length, taken)
        self._end = 0
        """So many bytes are there."""
        self._stopped = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def run(self) -> None:
        try:
            for offset, size in self._pieces:
                with self._changed:
                    self._end = offset + size
                    self._changed.notify_all()
                if self._stopped:
                    return
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def wait(self, end: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._end >= end or self._error is not None)
            if self._end < end and self._error is not None:
                raise self._error

    def stop(self) -> None:
        """Whatever is there by now stays."""
        self._stopped = True
        self.join()


def copy_out(driver: Driver, arena: CudaArena, target: LockedMemory, length: int) -> None:
    """The first ``length`` bytes, which are committed."""
    with copy_stream(driver) as stream:
        driver.copy_to_host(target.address, arena.address, length, stream)
