"""The weights of a model on a CUDA device: copied out once, read from the files when there is no copy."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from engine.memory.cuda import CudaArena
from engine.memory.driver import Driver
from engine.memory.host import LockedMemory
from engine.memory.ring import Ring
from engine.memory.transfer import commit_from, copy_out
from engine.ring_reader import RingReader
from engine.store import Source


class SharedRing:
    """The one ring of a device, made when it is first needed and kept: to lock memory takes its time."""

    def __init__(self, make: Callable[[], Ring]) -> None:
        self._make = make
        self._ring: Ring | None = None
        self._lock = threading.Lock()

    def get(self) -> Ring:
        """Raises OutOfMemory."""
        with self._lock:
            if self._ring is None:
                self._ring = self._make()
            return self._ring


class CudaStore:
    """See ``engine.store.Store``. Weights never change while they serve, so the copy that the first light
    sleep makes is good for every later one, and those only unmap."""

    in_ram = False

    def __init__(self, driver: Driver, ring: SharedRing, arena: CudaArena) -> None:
        self._driver = driver
        self._ring = ring
        self._arena = arena
        self._copy: LockedMemory | None = None
        self._reader: RingReader | None = None
        self._copied_in = 0

    @property
    def done(self) -> int:
        return self._reader.done if self._reader else self._copied_in

    @property
    def copied(self) -> int:
        return self._copy.size if self._copy else 0

    def restart(self) -> None:
        self._reader, self._copied_in = None, 0

    @contextmanager
    def filled(self, source: Source) -> Iterator[None]:
        if self._copy is not None:
            with commit_from(self._driver, self._arena, self._copy, source.span):
                self._copied_in = source.span
                yield
            return
        self._reader = RingReader(self._ring.get(), self._arena.address)
        with self._arena.commit(0, source.span):
            self._reader.read(source.shards, source.slices, source.dtype)
            yield

    def keep(self, source: Source) -> None:
        if self._copy is None:
            copy = LockedMemory(self._driver, source.span)
            try:
                copy_out(self._driver, self._arena, copy, source.span)
            except BaseException:
                copy.close()
                raise
            self._copy = copy

    def forget(self) -> None:
        if self._copy is not None:
            self._copy.close()
            self._copy = None
