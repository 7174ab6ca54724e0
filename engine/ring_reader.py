"""Filling an arena on a device from safetensors files, through a ring of locked buffers.

Reading, mapping and copying overlap, and nothing but the ring is held in RAM. Where the served dtype differs
from the file's, a buffer is converted before it is sent.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.checkpoint import Shard
from engine.device_reader import Conversion, DeviceReader, Mapped
from engine.direct import MARGIN, DirectFile
from engine.memory.parallel import run_all
from engine.memory.ring import Ring
from engine.reader import Stretch, reading


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

    def _convert(self, shard: Shard, file: DirectFile, part: Conversion) -> int:
        with self._ring.buffer() as buffer:
            read = part.read(shard, file, buffer.tensor, buffer.view)
            buffer.tensor[: part.made].view(part.dtype).copy_(read)
            self._mapped(part.target + part.made)
            self._ring.send(buffer, 0, part.made, self._address + part.target)
        return part.nbytes

    def _run(self, work: list[Callable[[], None]]) -> None:
        """Whether it succeeds or not, nothing is under way any more afterwards."""
        try:
            run_all(work)
        finally:
            self._ring.flush()
