"""Filling an arena on a device and a locked copy of it at once: files are read into the copy, and the device
copies from there, as soon as it has memory for it. Nothing is read twice.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch

from engine.checkpoint import Shard
from engine.device_reader import Conversion, DeviceReader, Mapped
from engine.direct import MARGIN, DirectFile
from engine.memory.cuda import CudaArena
from engine.memory.driver import Driver
from engine.memory.host import LockedMemory
from engine.memory.parallel import run_all
from engine.memory.transfer import copy_stream
from engine.reader import Stretch, reading, scatter

_PIECE: Final = 8 * 2**20


@dataclass(frozen=True, slots=True)
class _Buffer:
    """On whole pages, of one thread."""

    tensor: torch.Tensor
    view: memoryview


class CopyReader(DeviceReader):
    """Reads slices into ``copy`` and into ``arena``, which has memory as soon as ``mapped`` says so."""

    def __init__(self, driver: Driver, copy: LockedMemory, arena: CudaArena, mapped: Mapped) -> None:
        super().__init__(_PIECE)
        self._driver = driver
        self._memory = copy
        self._view = memoryview(copy.tensor.numpy().data)
        self._arena = arena
        self._mapped = mapped
        self._stream = 0
        self._own = threading.local()

    def _copy(self, shard: Shard, file: DirectFile, stretch: Stretch) -> int:
        total = sum(length for _, length in stretch.targets)
        if file.direct is None:
            scatter(shard, file.fd, stretch, self._view)
        else:  # straight to where they belong they cannot go: that is not aligned as in the file
            buffer = self._buffer()
            with reading(shard):
                start = file.read(buffer.view, stretch.offset, total)
            source = buffer.tensor.data_ptr() + start
            for target, length in stretch.targets:
                ctypes.memmove(self._memory.address + target, source, length)
                source += length
        for target, length in stretch.targets:
            self._send(target, length)
        return total

    def _convert(self, shard: Shard, file: DirectFile, part: Conversion) -> int:
        buffer = self._buffer()
        read = part.read(shard, file, buffer.tensor, buffer.view)
        self._memory.tensor[part.target : part.target + part.made].view(part.dtype).copy_(read)
        self._send(part.target, part.made)
        return part.nbytes

    def _send(self, target: int, length: int) -> None:
        self._mapped(target + length)
        self._driver.make_current()
        at = self._arena.address + target
        self._driver.copy_to_device(at, self._memory.address + target, length, self._stream)

    def _buffer(self) -> _Buffer:
        if not hasattr(self._own, "buffer"):
            tensor = torch.frombuffer(mmap.mmap(-1, _PIECE + MARGIN), dtype=torch.uint8)
            self._own.buffer = _Buffer(tensor, memoryview(tensor.numpy().data))
        buffer: _Buffer = self._own.buffer
        return buffer

    def _run(self, work: list[Callable[[], None]]) -> None:
        """Whether it succeeds or not, nothing is under way any more afterwards."""
        try:
            with copy_stream(self._driver) as self._stream:
                run_all(work)
        finally:
            self._own = threading.local()
