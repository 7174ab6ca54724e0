"""Files in the page cache: read in, dropped, and how much of them is there."""

from __future__ import annotations

import os
from pathlib import Path

_PAGE = 4096
_PROBES = 512


def load(files: list[Path]) -> None:
    """Read the files once, so that they lie in the cache as far as it holds them."""
    buffer = bytearray(16 * 2**20)
    for file in files:
        with file.open("rb", buffering=0) as stream:
            while stream.readinto(buffer):
                pass


def drop(files: list[Path]) -> None:
    """Ask the kernel to forget the files' pages; whether it did, ``resident_share`` says."""
    for file in files:
        fd = os.open(file, os.O_RDONLY)
        try:
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)


def resident_share(files: list[Path]) -> float:
    """The share of probed pages that can be read without going to the disk, 0 to 1."""
    hits = probes = 0
    for file in files:
        size = file.stat().st_size
        fd = os.open(file, os.O_RDONLY)
        try:
            for offset in range(0, size, max(_PAGE, size // _PROBES)):
                probes += 1
                hits += _is_resident(fd, offset)
        finally:
            os.close(fd)
    return hits / probes if probes else 0.0


def _is_resident(fd: int, offset: int) -> bool:
    try:
        return os.preadv(fd, [bytearray(1)], offset, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False
