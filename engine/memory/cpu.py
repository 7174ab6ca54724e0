"""Arenas in RAM: private anonymous mappings that are emptied by madvise and keep their addresses.

Everything goes through libc by ctypes: Python's own ``mmap`` is shared memory, which MADV_DONTNEED does not
free, and its ``madvise`` holds the GIL.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch

from engine.memory.budget import Budget
from engine.memory.sizes import HUGE_PAGE, PAGE, round_up
from engine.memory.system import SystemMemory, system
from engine.types import OutOfMemory

_PROT_READ, _PROT_WRITE = 1, 2
_MAP_PRIVATE, _MAP_ANONYMOUS, _MAP_NORESERVE = 0x02, 0x20, 0x4000
_MADV_DONTNEED, _MADV_HUGEPAGE, _MADV_NOHUGEPAGE, _MADV_POPULATE_WRITE = 4, 14, 15, 23
_MAP_FAILED = ctypes.c_void_p(-1).value
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_M_ARENA_MAX = -8

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class CpuArena:
    """See ``Arena``. The mapping lives until the process ends or ``close``: tensors may outlive the engine
    by a moment, addresses must not be reused under them."""

    def __init__(
        self,
        size: int,
        granularity: int | None = None,
        *,
        memory: SystemMemory = system,
        budget: Budget | None = None,
    ) -> None:
        self.granularity = granularity or HUGE_PAGE
        self.size = round_up(max(size, 1), self.granularity)
        self.committed = 0
        self._memory = memory
        self._budget = budget or Budget()
        self._mapped = self.size + HUGE_PAGE
        self._base = _reserve(self._mapped)
        self.address = round_up(self._base, HUGE_PAGE)
        huge = self.granularity % HUGE_PAGE == 0
        self._advise(0, self.size, _MADV_HUGEPAGE if huge else _MADV_NOHUGEPAGE)
        buffer = (ctypes.c_char * self.size).from_address(self.address)
        self.tensor = torch.frombuffer(buffer, dtype=torch.uint8)

    def commit(self, offset: int, length: int) -> AbstractContextManager[None]:
        return self.commit_all([(offset, length)])

    @contextmanager
    def commit_all(self, ranges: Sequence[tuple[int, int]]) -> Iterator[None]:
        total = sum(length for _, length in ranges)
        with self._memory.claim(total):
            self._budget.take(total)
            self.committed += total
            try:
                yield
            except BaseException:
                for offset, length in ranges:
                    self.release(offset, length)
                raise

    def populate(self, offset: int, length: int) -> None:
        if _libc.madvise(self.address + offset, length, _MADV_POPULATE_WRITE):
            if ctypes.get_errno() != errno.EINVAL:
                raise OutOfMemory(length, 0)
            self.tensor[offset : offset + length : PAGE].zero_()  # before Linux 5.14

    def release(self, offset: int, length: int) -> None:
        if length:
            self._advise(offset, length, _MADV_DONTNEED)
            self.committed -= length
            self._budget.give(length)

    def close(self) -> None:
        if self._mapped:
            _libc.munmap(self._base, self._mapped)
            self._budget.give(self.committed)
            self.committed = self._mapped = 0

    def _advise(self, offset: int, length: int, advice: int) -> None:
        if _libc.madvise(self.address + offset, length, advice) and advice == _MADV_DONTNEED:
            raise OSError(ctypes.get_errno(), f"madvise: {os.strerror(ctypes.get_errno())}")


def _reserve(size: int) -> int:
    flags = _MAP_PRIVATE | _MAP_ANONYMOUS | _MAP_NORESERVE
    address = _libc.mmap(None, size, _PROT_READ | _PROT_WRITE, flags, -1, 0)
    if address is None or address == _MAP_FAILED:
        raise OSError(ctypes.get_errno(), f"mmap of {size} bytes: {os.strerror(ctypes.get_errno())}")
    return int(address)


def tune_allocator() -> None:
    """Make malloc keep what it has for the next step: a fresh page costs more than what is computed in it.
    ``trim_allocator`` gives it back."""
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(_M_MMAP_THRESHOLD, 2**25)
        _libc.mallopt(_M_TRIM_THRESHOLD, 2**29)
        _libc.mallopt(_M_ARENA_MAX, 1)


def trim_allocator() -> None:
    """Return what malloc holds free to the system (glibc only)."""
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)
