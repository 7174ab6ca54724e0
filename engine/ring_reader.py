"""Filling an arena on a device from safetensors files, through a ring of locked buffers.

Reading, mapping and copying overlap, and nothing but the ring is held in RAM. Where the served dtype differs
from the file's, a buffer is converted before it is sent.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

import torch

from engine.checkpoint import Shard
from engine.direct import MARGIN, DirectFile
from engine.memory.parallel import run_all
from engine.memory.ring import Ring
from engine.reader import DTYPES, ShardReader, Slice, Stretch, plan, reading

Mapped = Callable[[int], None]
"""Waits until so many bytes of an arena have memory behind them; raises what stands in the way."""


class DeviceReader(ShardReader):
    """What the ways onto a device have in common: files that are read past the page cache, at most ``room``
    bytes at once."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self._room = room

    def _jobs(
        self, shard: Shard, fd: int, slices: list[Slice], dtype: torch.dtype, stack: ExitStack
    ) -> Iterator[Callable[[], int]]:
        file = DirectFile(shard.path, fd)
        stack.callback(file.close)
        straight = [s for s in slices if DTYPES[s.source.dtype] == dtype]
        for stretch in plan(straight, self._room):
            yield partial(self._copy, shard, file, stretch)
        for part in slices:
            if DTYPES[part.source.dtype] != dtype:
                yield from self._conversions(shard, file, part, dtype)

    def _conversions(
        self, shard: Shard, file: DirectFile, part: Slice, dtype: torch.dtype
    ) -> Iterator[Callable[[], int]]:
        source = DTYPES[part.source.dtype]
        items = self._room // max(source.itemsize, dtype.itemsize)
        for first in range(0, part.source.nbytes // source.itemsize, items):
            offset = part.source.offset + first * source.itemsize
            count = min(items, part.source.nbytes // source.itemsize - first)
            target = part.target + first * dtype.itemsize
            yield partial(self._convert, shard, file, (offset, count), (source, dtype), target)

    @abstractmethod
    def _copy(self, shard: Shard, file: DirectFile, stretch: Stretch) -> int: ...

    @abstractmethod
    def _convert(
        self,
        shard: Shard,
        file: DirectFile,
        place: tuple[int, int],
        dtypes: tuple[torch.dtype, torch.dtype],
        target: int,
    ) -> int:
        """``place``: offset in the file, and numbers. ``dtypes``: from which into which."""


class RingReader(DeviceReader):
    """Reads slices to the addresses from ``address`` on, which the device has memory behind as soon as
    ``mapped`` says so."""

    def __init__(self, ring: Ring, address: int, mapped: Mapped) -> None:
        super().__init__(ring.buffer_size - MARGIN)
        self._ring = ring
        self._address = address
        self._mapped = mapped

    def _copy(self, shard: Shard, file: DirectFile, stretch: Stretch) -> int:
        total = sum(length for _, length in stretch.targets)
        with self._ring.buffer() as buffer:
            with reading(shard):
                start = file.read(buffer.view, stretch.offset, total)
            for target, length in stretch.targets:
                self._mapped(target + length)
                self._ring.send(buffer, start, length, self._address + target)
                start += length
        return total

    def _convert(
        self,
        shard: Shard,
        file: DirectFile,
        place: tuple[int, int],
        dtypes: tuple[torch.dtype, torch.dtype],
        target: int,
    ) -> int:
        (offset, count), (source, dtype) = place, dtypes
        nbytes = count * source.itemsize
        with self._ring.buffer() as buffer:
            with reading(shard):
                start = file.read(buffer.view, offset, nbytes)
            # Copied out first: in the file, numbers need not lie at multiples of their size.
            read = buffer.tensor[start : start + nbytes].clone().view(source)
            made = count * dtype.itemsize
            buffer.tensor[:made].view(dtype).copy_(read)
            self._mapped(target + made)
            self._ring.send(buffer, 0, made, self._address + target)
        return nbytes

    def _run(self, work: list[Callable[[], None]]) -> None:
        """Whether it succeeds or not, nothing is under way any more afterwards."""
        try:
            run_all(work)
        finally:
            self._ring.flush()
