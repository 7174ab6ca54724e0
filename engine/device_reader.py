"""What the ways from safetensors files onto a device have in common: which pieces are read, and which of them
are converted on their way."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch

from engine.checkpoint import Shard
from engine.direct import DirectFile
from engine.reader import DTYPES, ShardReader, Slice, Stretch, plan, reading

Mapped = Callable[[int], None]
"""Waits until so many bytes of an arena have memory behind them; raises what stands in the way."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """``count`` numbers at ``offset`` of a file, and where they go in the arena, as ``dtype``."""

    offset: int
    count: int
    source: torch.dtype
    dtype: torch.dtype
    target: int

    @property
    def nbytes(self) -> int:
        """In the file."""
        return self.count * self.source.itemsize

    @property
    def made(self) -> int:
        """Bytes in the arena."""
        return self.count * self.dtype.itemsize

    def read(self, shard: Shard, file: DirectFile, buffer: torch.Tensor, view: memoryview) -> torch.Tensor:
        """The numbers as the file has them, by way of a buffer and its view."""
        with reading(shard):
            start = file.read(view, self.offset, self.nbytes)
        # Copied out: in the buffer, as in the file, numbers need not lie at multiples of their size.
        return buffer[start : start + self.nbytes].clone().view(self.source)


class DeviceReader(ShardReader):
    """Files are read past the page cache where it does not have them, at most ``room`` bytes at once."""

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
                for conversion in self._conversions(part, dtype):
                    yield partial(self._convert, shard, file, conversion)

    def _conversions(self, part: Slice, dtype: torch.dtype) -> Iterator[Conversion]:
        source = DTYPES[part.source.dtype]
        items, most = (
            part.source.nbytes // source.itemsize,
            self._room // max(source.itemsize, dtype.itemsize),
        )
        for first in range(0, items, most):
            offset, target = (
                part.source.offset + first * source.itemsize,
                part.target + first * dtype.itemsize,
            )
            yield Conversion(offset, min(most, items - first), source, dtype, target)

    @abstractmethod
    def _copy(self, shard: Shard, file: DirectFile, stretch: Stretch) -> int:
        """Bytes read."""

    @abstractmethod
    def _convert(self, shard: Shard, file: DirectFile, part: Conversion) -> int:
        """Bytes read."""
