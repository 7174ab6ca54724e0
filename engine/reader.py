"""Filling an arena from safetensors files: a few threads, large positioned reads, checked files.

One ``preadv`` scatters a stretch of a file over many slices of the arena. Where the served dtype differs from
the file's, the bytes go through a bounded buffer. The bytes are known to come from the very files that the
layout was made from: every fingerprint is taken on the open descriptor, before and after reading.
"""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch

from engine.checkpoint import Fingerprint, Shard, StoredTensor
from engine.memory.parallel import run_all
from engine.types import CheckpointError

DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}

_PIECE = 16 * 2**20
_IOV_MAX = 1024


@dataclass(frozen=True, slots=True)
class Slice:
    """Where one checkpoint tensor goes. ``target`` is its offset in the arena, in bytes."""

    source: StoredTensor
    shard: int
    target: int


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of one file: these bytes, scattered to these targets in this order."""

    offset: int
    targets: tuple[tuple[int, int], ...]
    """(offset in the arena, bytes), contiguous in the file."""


class ShardReader(ABC):
    """What the readers into RAM and onto a device have in common: files that are checked, threads, and how
    far they are."""

    def __init__(self) -> None:
        self.done = 0
        """Bytes read so far by the read under way, or by the last one."""
        self._lock = threading.Lock()

    def read(self, shards: Sequence[Shard], slices: Sequence[Slice], dtype: torch.dtype) -> None:
        """Blocking. Raises CheckpointError; what was read by then is of no use."""
        self.done = 0
        work: list[Callable[[], None]] = []
        with ExitStack() as stack:
            descriptors = []
            for shard in shards:
                descriptors.append(_open(shard))
                stack.callback(os.close, descriptors[-1])
            for index, (shard, fd) in enumerate(zip(shards, descriptors, strict=True)):
                _check(shard, fd)
                own = [s for s in slices if s.shard == index]
                work += [partial(self._count, job) for job in self._jobs(shard, fd, own, dtype, stack)]
            self._run(work)
            for shard, fd in zip(shards, descriptors, strict=True):
                _check(shard, fd)

    @abstractmethod
    def _jobs(
        self, shard: Shard, fd: int, slices: list[Slice], dtype: torch.dtype, stack: ExitStack
    ) -> Iterator[Callable[[], int]]:
        """What is to be done for one file, in any order and at once; each tells how many bytes it has read.
        ``stack`` closes what they need when all are done."""

    def _run(self, work: list[Callable[[], None]]) -> None:
        run_all(work)

    def _count(self, job: Callable[[], int]) -> None:
        done = job()
        with self._lock:
            self.done += done


class Reader(ShardReader):
    """Reads slices into ``arena`` (uint8 [bytes], in RAM)."""

    def __init__(self, arena: torch.Tensor) -> None:
        super().__init__()
        self._arena = arena
        self._buffer = memoryview(arena.numpy().data)

    def _jobs(
        self, shard: Shard, fd: int, slices: list[Slice], dtype: torch.dtype, stack: ExitStack
    ) -> Iterator[Callable[[], int]]:
        straight = [s for s in slices if DTYPES[s.source.dtype] == dtype]
        for stretch in plan(straight, _PIECE):
            yield partial(scatter, shard, fd, stretch, self._buffer)
        for part in slices:
            if DTYPES[part.source.dtype] != dtype:
                yield from self._conversions(shard, fd, part, dtype)

    def _conversions(
        self, shard: Shard, fd: int, part: Slice, dtype: torch.dtype
    ) -> Iterator[Callable[[], int]]:
        source = DTYPES[part.source.dtype]
        step = _PIECE // source.itemsize
        for first in range(0, part.source.nbytes // source.itemsize, step):
            offset = part.source.offset + first * source.itemsize
            nbytes = min(step * source.itemsize, part.source.offset + part.source.nbytes - offset)
            start = part.target + first * dtype.itemsize
            target = self._arena[start : start + nbytes // source.itemsize * dtype.itemsize].view(dtype)

            def convert(offset: int = offset, nbytes: int = nbytes, target: torch.Tensor = target) -> int:
                staging = bytearray(nbytes)
                scatter(shard, fd, Stretch(offset, ((0, nbytes),)), memoryview(staging))
                target.copy_(torch.frombuffer(staging, dtype=source))
                return nbytes

            yield convert


def _open(shard: Shard) -> int:
    try:
        return os.open(shard.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise CheckpointError(
            f"{shard.path}: {error.strerror}", reason=f"the checkpoint's file {shard.path.name} is missing"
        ) from error


def _check(shard: Shard, fd: int) -> None:
    try:
        same = Fingerprint.of(fd) == shard.fingerprint
    except (OSError, ValueError):
        same = False
    if not same:
        raise CheckpointError(
            f"{shard.path} has changed since it was first read",
            reason=f"the checkpoint's file {shard.path.name} has changed since it was first read",
        )


def plan(slices: list[Slice], piece: int) -> Iterator[Stretch]:
    """Contiguous stretches of one file, of at most ``piece`` bytes."""
    targets: list[tuple[int, int]] = []
    start = end = size = 0
    for part in sorted(slices, key=lambda s: s.source.offset):
        offset, target, left = part.source.offset, part.target, part.source.nbytes
        while left:
            if targets and (offset != end or size >= piece or len(targets) == _IOV_MAX):
                yield Stretch(start, tuple(targets))
                targets, size = [], 0
            if not targets:
                start = end = offset
            take = min(left, piece - size)
            targets.append((target, take))
            offset, target, left = offset + take, target + take, left - take
            end, size = end + take, size + take
    if targets:
        yield Stretch(start, tuple(targets))


@contextmanager
def reading(shard: Shard) -> Iterator[None]:
    """What goes wrong in reading its file, as CheckpointError."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"{shard.path}: {error.strerror}", reason=f"reading {shard.path.name} failed: {error.strerror}"
        ) from error
    except EOFError as error:
        raise CheckpointError(
            f"{shard.path} is shorter than its header says", reason=f"{shard.path.name} has changed"
        ) from error


def scatter(shard: Shard, fd: int, stretch: Stretch, buffer: memoryview) -> int:
    """Read the stretch into its targets; a short read goes on where it stopped."""
    views = [buffer[start : start + length] for start, length in stretch.targets]
    offset, total = stretch.offset, 0
    with reading(shard):
        while views:
            count = os.preadv(fd, views, offset + total)
            if count == 0:
                raise EOFError
            total += count
            while views and count >= len(views[0]):
                count -= len(views.pop(0))
            if count:
                views[0] = views[0][count:]
    return total
