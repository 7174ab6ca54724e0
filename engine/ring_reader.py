"""Filling an arena on a device from safetensors files, through a ring of locked buffers.

Reading and copying overlap, and nothing but the ring is held in RAM. Where the served dtype differs from the
file's, a buffer is converted before it is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

import torch

from engine.checkpoint import Shard
from engine.direct import MARGIN, DirectFile
from engine.memory.parallel import run_all
from engine.memory.ring import Ring
from engine.reader import DTYPES, ShardReader, Slice, Stretch, plan, reading


class RingReader(ShardReader):
    """Reads slices to the addresses from ``address`` on, which the device has memory behind."""

    def __init__(self, ring: Ring, address: int) -> None:
        super().__init__()
        self._ring = ring
        self._address = address

    def _jobs(
        self, shard: Shard, fd: int, slices: list[Slice], dtype: torch.dtype, stack: ExitStack
    ) -> Iterator[Callable[[], int]]:
        file = DirectFile(shard.path, fd)
        stack.callback(file.close)
        room = self._ring.buffer_size - MARGIN
        straight = [s for s in slices if DTYPES[s.source.dtype] == dtype]
        for stretch in plan(straight, room):
            yield partial(self._copy, shard, file, stretch)
        for part in slices:
            if DTYPES[part.source.dtype] != dtype:
                yield from self._conversions(shard, file, part, dtype)

    def _copy(self, shard: Shard, file: DirectFile, stretch: Stretch) -> int:
        total = sum(length for _, length in stretch.targets)
        with self._ring.buffer() as buffer:
            with reading(shard):
                start = file.read(buffer.view, stretch.offset, total)
            for target, length in stretch.targets:
                self._ring.send(buffer, start, length, self._address + target)
                start += length
        return total

    def _conversions(
        self, shard: Shard, file: DirectFile, part: Slice, dtype: torch.dtype
    ) -> Iterator[Callable[[], int]]:
        source = DTYPES[part.source.dtype]
        items = (self._ring.buffer_size - MARGIN) // max(source.itemsize, dtype.itemsize)
        for first in range(0, part.source.nbytes // source.itemsize, items):
            offset = part.source.offset + first * source.itemsize
            count = min(items, part.source.nbytes // source.itemsize - first)
            target = self._address + part.target + first * dtype.itemsize
            yield partial(self._convert, shard, file, (offset, count), (source, dtype), target)

    def _convert(
        self,
        shard: Shard,
        file: DirectFile,
        place: tuple[int, int],
        dtypes: tuple[torch.dtype, torch.dtype],
        target: int,
    ) -> int:
        """``place``: offset in the file, and numbers. ``dtypes``: from which into which."""
        (offset, count), (source, dtype) = place, dtypes
        nbytes = count * source.itemsize
        with self._ring.buffer() as buffer:
            with reading(shard):
                start = file.read(buffer.view, offset, nbytes)
            # Copied out first: in the file, numbers need not lie at multiples of their size.
            read = buffer.tensor[start : start + nbytes].clone().view(source)
            buffer.tensor[: count * dtype.itemsize].view(dtype).copy_(read)
            self._ring.send(buffer, 0, count * dtype.itemsize, target)
        return nbytes

    def _run(self, work: list[Callable[[], None]]) -> None:
        """Whether it succeeds or not, nothing is under way any more afterwards."""
        try:
            run_all(work)
        finally:
            self._ring.flush()
