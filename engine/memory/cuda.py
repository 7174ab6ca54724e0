"""Arenas on a CUDA device: an address range whose memory is mapped and unmapped through the driver.

Views, kernels and CUDA graphs hold raw addresses, so the range is reserved once and memory comes and goes
behind it, in pieces as large as possible: the driver takes its time for every call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import torch

from engine.memory.budget import Budget
from engine.memory.driver import Driver, DriverError
from engine.memory.sizes import round_up
from engine.types import DeviceError, EngineError, OutOfMemory

CHUNK: Final = 256 * 2**20
"""What large ranges are mapped in. To be chosen by measurement; no GPU has been had for it yet."""

TensorFactory = Callable[[int, int], torch.Tensor]
"""Address and bytes → uint8 [bytes] over them."""


class CudaArena:
    """See ``Arena``. One thread at a time."""

    def __init__(
        self,
        driver: Driver,
        size: int,
        granularity: int | None = None,
        *,
        make_tensor: TensorFactory,
        budget: Budget | None = None,
        chunk: int = CHUNK,
        finish: Callable[[], None] = lambda: None,
        relieve: Callable[[], None] | None = None,
    ) -> None:
        """``finish`` waits for what is queued on the device and may touch what is released: a kernel that
        finds no memory ends the context, and a pass that was given up is still under way. Where
        ``granularity`` is given, any multiple of it is released by itself; else memory is mapped in pieces
        of ``chunk``, and released as it was committed. ``relieve`` has others give back what they only keep,
        before the device is called full."""
        driver.make_current()
        self._driver = driver
        self._budget = budget or Budget()
        self.granularity = round_up(granularity or 1, driver.allocation_granularity())
        self.size = round_up(max(size, 1), self.granularity)
        self._finish = finish
        self._relieve = relieve
        self._chunk = self.granularity if granularity else round_up(chunk, self.granularity)
        self._mappings: dict[int, _Mapping] = {}
        """By their offsets."""
        self.committed = 0
        self.address = driver.address_reserve(self.size)
        try:
            self.tensor = make_tensor(self.address, self.size)
        except BaseException:
            driver.address_free(self.address, self.size)
            raise
        self._reserved = True

    def commit(self, offset: int, length: int) -> AbstractContextManager[None]:
        return self.commit_all([(offset, length)])

    @contextmanager
    def commit_all(self, ranges: Sequence[tuple[int, int]]) -> Iterator[None]:
        total = sum(length for _, length in ranges)
        self._driver.make_current()
        self._budget.take(total)
        with ExitStack() as undo:
            undo.callback(self._budget.give, total)
            try:
                self._map_all(ranges, undo)
            except DriverError as error:
                if error.out_of_memory:
                    raise OutOfMemory(total, self._driver.mem_get_info()[0]) from error
                raise
            yield
            undo.pop_all()

    def _map_all(self, ranges: Sequence[tuple[int, int]], undo: ExitStack) -> None:
        """Nothing is mapped any more when it raises."""
        for relieve in (self._relieve, None):
            try:
                with ExitStack() as mapped:
                    for offset, length in ranges:
                        self._map(offset, length, mapped)
                    undo.push(mapped.pop_all())
                return
            except DriverError as error:
                if relieve is None or not error.out_of_memory:
                    raise
                relieve()

    def _map(self, offset: int, length: int, undo: ExitStack) -> None:
        for start, size in self.pieces(offset, length):
            handle = self._driver.mem_create(size)
            undo.callback(self._driver.mem_release, handle)
            self._driver.mem_map(self.address + start, size, handle)
            undo.callback(self._unmap, start)
            self._mappings[start] = _Mapping(size, handle)
            self.committed += size
        if length:
            self._driver.mem_set_access(self.address + offset, length)

    def _unmap(self, start: int) -> None:
        size = self._mappings[start].size
        self._driver.make_current()
        self._driver.mem_unmap(self.address + start, size)
        del self._mappings[start]
        self.committed -= size

    def pieces(self, offset: int, length: int) -> list[tuple[int, int]]:
        """How a range is mapped: (offset, bytes), cut where a chunk begins."""
        end = offset + length
        bounds = [offset, *range(round_up(offset + 1, self._chunk), end, self._chunk), end]
        return [(start, stop - start) for start, stop in pairwise(bounds) if start < stop]

    def populate(self, offset: int, length: int) -> None:
        """What is mapped is there."""

    def release(self, offset: int, length: int) -> None:
        """Raises ValueError for a part of what was mapped in one piece, DeviceError where the driver refuses:
        what stays mapped would be in the way of every later commit."""
        end = offset + length
        inside = {start: m.size for start, m in self._mappings.items() if offset <= start < end}
        if sum(inside.values()) != length or any(start + size > end for start, size in inside.items()):
            raise ValueError(f"{length} bytes at {offset} were not committed as a whole")
        if inside:
            self._finish()
        try:
            for start in sorted(inside):
                mapping = self._mappings[start]
                self._unmap(start)
                self._driver.mem_release(mapping.handle)
                self._budget.give(mapping.size)
        except DriverError as error:
            raise DeviceError(f"memory cannot be given back: {error}") from error

    def close(self) -> None:
        """Releases what is still committed."""
        if self._reserved:
            for start, mapping in sorted(self._mappings.items()):
                self.release(start, mapping.size)
            self._driver.make_current()
            self._driver.address_free(self.address, self.size)
            self._reserved = False


@dataclass(frozen=True, slots=True)
class _Mapping:
    size: int
    handle: int


def tensor_factory(device: torch.device) -> TensorFactory:
    """For addresses on a CUDA device, with memory behind them or not."""

    def make(address: int, size: int) -> torch.Tensor:
        # With the device named, torch asks the driver nothing about an address that is not mapped yet.
        tensor = torch.as_tensor(_Bytes(address, size), device=device)
        if tensor.data_ptr() != address:
            raise EngineError("torch has copied what it was to look at")
        return tensor

    return make


class _Bytes:
    """Bytes on a CUDA device, as other libraries take them over without copying."""

    def __init__(self, address: int, size: int) -> None:
        self.__cuda_array_interface__ = {
            "version": 3,
            "shape": (size,),
            "typestr": "|u1",
            "data": (address, False),
        }
