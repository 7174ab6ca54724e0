"""What the card and the machine can do at best, and what is free: measured in the run that is compared."""

from __future__ import annotations

import gc
import mmap
import os
import time
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from queue import SimpleQueue
from statistics import median
from typing import ParamSpec

import numpy as np
import torch

from engine.memory.parallel import reader_threads, run_all

DEVICE = torch.device("cuda", 0)
GIB = 2**30
_PIECE = 8 * 2**20
P = ParamSpec("P")


def finish() -> None:
    torch.cuda.synchronize()


def free() -> int:
    """Bytes, as the driver tells it."""
    finish()
    return int(torch.cuda.mem_get_info(DEVICE)[0])


def trim() -> None:
    """Give back what torch keeps for later."""
    gc.collect()
    torch.cuda.empty_cache()


def others(size: int = 256 * 2**20) -> None:
    """Take memory, write to all of it, and give it back."""
    taken = [torch.full((size // parts,), 0xFF, dtype=torch.uint8, device=DEVICE) for parts in (1, 2, 7)]
    finish()
    del taken
    trim()


def _trimmed(measure: Callable[P, float]) -> Callable[P, float]:
    """Nothing of what it took is kept."""

    @wraps(measure)
    def trimmed(*args: P.args, **kwargs: P.kwargs) -> float:
        try:
            return measure(*args, **kwargs)
        finally:
            trim()

    return trimmed


def seconds(work: Callable[[], object], rounds: int = 5) -> float:
    """The median, the device's part included, after a first round."""
    work()
    took = []
    for _ in range(rounds):
        finish()
        began = time.perf_counter()
        work()
        finish()
        took.append(time.perf_counter() - began)
    return median(took)


@_trimmed
def link_rate(size: int = GIB) -> float:
    """Bytes a second of a plain copy from pinned memory."""
    source = torch.zeros(size, dtype=torch.uint8, pin_memory=True)
    target = torch.empty(size, dtype=torch.uint8, device=DEVICE)
    return size / seconds(lambda: target.copy_(source, non_blocking=True), 10)


def memory_copy_rate(size: int = 2 * GIB) -> float:
    """Bytes a second from one place in RAM to another, by as many threads as read files."""
    source, target = np.ones(size, dtype=np.uint8), np.zeros(size, dtype=np.uint8)
    parts = [slice(at, at + _PIECE) for at in range(0, size, _PIECE)]
    took = []
    for _ in range(4):
        began = time.perf_counter()
        run_all([partial(np.copyto, target[part], source[part]) for part in parts])
        took.append(time.perf_counter() - began)
    return size / median(took[1:])


@_trimmed
def read_rate(size: int = 8 * GIB) -> float:
    """Bytes a second that the card reads, or copies, of its own memory: what is faster."""
    numbers = torch.ones(size // 4, dtype=torch.float32, device=DEVICE)
    half = len(numbers) // 2
    return size / min(
        seconds(lambda: torch.sum(numbers)), seconds(lambda: numbers[:half].copy_(numbers[half:]))
    )


@_trimmed
def product_rate(size: int = 8192) -> float:
    """Floating point operations a second of a bfloat16 product of random numbers."""
    one, other, out = torch.randn(3, size, size, device=DEVICE, dtype=torch.bfloat16)
    return 2 * size**3 / seconds(lambda: torch.mm(one, other, out=out), 10)


def direct_read_rate(files: list[Path]) -> float | None:
    """Bytes a second past the page cache, by as many threads as the product uses; None where the file system
    cannot."""
    try:
        opened = [(os.open(file, os.O_RDONLY | os.O_DIRECT), file.stat().st_size) for file in files]
    except OSError:
        return None

    buffers: SimpleQueue[mmap.mmap] = SimpleQueue()
    for _ in range(2 * reader_threads()):
        buffers.put(mmap.mmap(-1, _PIECE))

    def read(descriptor: int, offset: int) -> None:
        buffer = buffers.get()
        try:
            os.preadv(descriptor, [buffer], offset)
        finally:
            buffers.put(buffer)

    try:
        jobs = [partial(read, fd, at) for fd, size in opened for at in range(0, size, _PIECE)]
        began = time.perf_counter()
        run_all(jobs)
        return sum(size for _, size in opened) / (time.perf_counter() - began)
    except OSError:
        return None
    finally:
        for descriptor, _ in opened:
            os.close(descriptor)


def uncache(files: list[Path]) -> None:
    """Have the page cache forget them."""
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
