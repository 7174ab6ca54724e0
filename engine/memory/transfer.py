"""Whole arenas to and from locked host memory, by copies that the device makes itself."""

from __future__ import annotations

from collections.abc import Iterator
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
            for offset, size in arena.pieces(0, length):
                try:
                    taken.enter_context(arena.commit(offset, size))
                except OutOfMemory as error:
                    raise OutOfMemory(length, offset + error.available) from error
                driver.copy_to_device(arena.address + offset, source.address + offset, size, stream)
        yield


def copy_out(driver: Driver, arena: CudaArena, target: LockedMemory, length: int) -> None:
    """The first ``length`` bytes, which are committed."""
    with copy_stream(driver) as stream:
        driver.copy_to_host(target.address, arena.address, length, stream)
