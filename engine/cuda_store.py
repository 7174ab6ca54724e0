"""The weights of a model on a CUDA device: copied in from locked memory, or read from the files."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from engine.copy_reader import CopyReader
from engine.device_reader import Mapped
from engine.memory.copies import HostCopies, HostCopy
from engine.memory.cuda import CudaArena
from engine.memory.driver import Driver
from engine.memory.ring import Ring
from engine.memory.transfer import commit_beside, commit_from, copy_out
from engine.reader import ShardReader
from engine.ring_reader import RingReader
from engine.store import Source
from engine.types import OutOfMemory


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
    """See ``engine.store.Store``. Weights never change while they serve, so a copy is good for every later
    sleep, and those only unmap. It is made while the files are first read, if there is room that nobody
    uses; else by the first light sleep."""

    in_ram = False

    def __init__(
        self, driver: Driver, copies: HostCopies, ring: SharedRing, arena: CudaArena, *, copy_early: bool
    ) -> None:
        self._driver = driver
        self._copies = copies
        self._ring = ring
        self._arena = arena
        self._copy_early = copy_early
        """Not yet read, and wanted."""
        self._copy = HostCopy()
        self._reader: ShardReader | None = None
        self._copied_in = 0

    @property
    def done(self) -> int:
        return self._reader.done if self._reader else self._copied_in

    @property
    def copied(self) -> int:
        return self._copy.size

    def restart(self) -> None:
        self._reader, self._copied_in = None, 0

    @contextmanager
    def filled(self, source: Source) -> Iterator[None]:
        self._copies.claim(self._copy)
        memory, span = self._copy.memory, source.span
        with commit_from(self._driver, self._arena, memory, span) if memory else self._read(source):
            self._copied_in = span
            yield
        self._copies.spare(self._copy)

    @contextmanager
    def _read(self, source: Source) -> Iterator[None]:
        if self._copy_early:
            with suppress(OutOfMemory):
                self._copy.memory = self._copies.make(source.span)
        try:
            with commit_beside(self._arena, source.span) as mapped:
                self._reader = self._new_reader(mapped)
                self._reader.read(source.shards, source.slices, source.dtype)
                mapped(source.span)
                yield
        except BaseException:
            self._copy.close()
            raise
        self._copy_early = False

    def _new_reader(self, mapped: Mapped) -> ShardReader:
        if self._copy.memory is not None:
            return CopyReader(self._driver, self._copy.memory, self._arena, mapped)
        return RingReader(self._ring.get(), self._arena.address, mapped)

    def keep(self, source: Source) -> None:
        if not self._copies.claim(self._copy):
            memory = self._copies.make_needed(source.span)
            try:
                copy_out(self._driver, self._arena, memory, source.span)
            except BaseException:
                memory.close()
                raise
            self._copy.memory = memory

    def forget(self) -> None:
        self._copies.claim(self._copy)
        self._copy.close()
