"""How fast this machine copies memory and reads files, measured in a moment: estimates, not benchmarks."""

from __future__ import annotations

import mmap
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CHUNK: Final = 4 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Bytes a second. Reading includes what it takes to get the memory that is read into."""

    copy: float
    cached: float
    """Of files in the page cache."""
    disk: float
    """Past the page cache, where the file system allows that."""


def measure(files: Sequence[Path], seconds: float) -> Rates:
    """Takes about so long; the files, one at least, are read here and there. Raises OSError."""
    copy = _rate(seconds * 0.1, _copying())
    disk = _rate(seconds * 0.5, lambda: _read(random.choice(files), os.O_DIRECT))
    cached = _rate(seconds * 0.4, _reading_again(random.choice(files)))
    return Rates(copy=copy, cached=cached, disk=min(disk or cached, cached))


def _rate(seconds: float, work: Callable[[], int | None]) -> float:
    """Of what ``work`` tells to have done, again and again; 0 when it cannot be done."""
    done, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds or not done:
        if not (size := work()):
            return 0.0
        done += size
    return done / elapsed


def _copying() -> Callable[[], int]:
    source, target = bytearray(CHUNK), bytearray(CHUNK)

    def copy() -> int:
        target[:] = source
        return CHUNK

    return copy


def _reading_again(file: Path) -> Callable[[], int | None]:
    place = _somewhere(file)
    _read(file, 0, place)
    return lambda: _read(file, 0, place)


def _read(file: Path, flags: int, place: int | None = None) -> int | None:
    """Bytes of one chunk read into fresh memory; None: not with these flags."""
    with mmap.mmap(-1, CHUNK) as memory:
        try:
            descriptor = os.open(file, os.O_RDONLY | flags)
        except OSError:
            if not flags:
                raise
            return None
        try:
            return os.preadv(descriptor, [memory], _somewhere(file) if place is None else place)
        except OSError:
            if not flags:
                raise
            return None
        finally:
            os.close(descriptor)


def _somewhere(file: Path) -> int:
    """Where a chunk begins, at a page."""
    last = max(0, file.stat().st_size - CHUNK)
    return random.randint(0, last // mmap.PAGESIZE) * mmap.PAGESIZE
