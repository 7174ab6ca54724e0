"""A few buffers in locked memory through which bytes reach the device: one is filled while others are copied.

The device copies by itself; a buffer is filled again when the copies from it are done. However much goes
through, no more memory is used than the buffers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from queue import SimpleQueue

import torch

from engine.memory.budget import Budget
from engine.memory.driver import Driver
from engine.memory.host import LockedMemory
from engine.memory.sizes import PAGE, round_up
from engine.memory.system import SystemMemory, system


@dataclass(frozen=True, slots=True)
class Buffer:
    """``tensor``: uint8, on whole pages; ``view``: the same. ``event``: the copies from it are done."""

    address: int
    tensor: torch.Tensor
    view: memoryview
    event: int


class Ring:
    """Thread-safe, but for ``close``."""

    def __init__(
        self,
        driver: Driver,
        count: int,
        size: int,
        *,
        memory: SystemMemory = system,
        budget: Budget | None = None,
    ) -> None:
        """``count`` buffers of ``size`` bytes. Raises OutOfMemory, having taken nothing."""
        self._driver = driver
        self.buffer_size = round_up(size, PAGE)
        self._free: SimpleQueue[Buffer] = SimpleQueue()
        """Those copied from the longest ago first."""
        with ExitStack() as undo:
            locked = LockedMemory(driver, count * self.buffer_size, memory=memory, budget=budget)
            undo.callback(locked.close)
            self._stream = driver.stream_create()
            undo.callback(driver.stream_destroy, self._stream)
            for start in range(0, count * self.buffer_size, self.buffer_size):
                event = driver.event_create()
                undo.callback(driver.event_destroy, event)
                tensor = locked.tensor[start : start + self.buffer_size]
                self._free.put(Buffer(locked.address + start, tensor, tensor.numpy().data, event))
            undo.callback(self.flush)
            self._undo = undo.pop_all()

    @contextmanager
    def buffer(self) -> Iterator[Buffer]:
        """One that nothing is copied from any more, for the body to fill and to ``send`` from."""
        buffer = self._free.get()
        try:
            self._driver.make_current()
            self._driver.event_synchronize(buffer.event)
            yield buffer
            self._driver.event_record(buffer.event, self._stream)
        finally:
            self._free.put(buffer)

    def send(self, buffer: Buffer, start: int, size: int, target: int) -> None:
        """Let the device copy a part of the buffer to an address of its own."""
        self._driver.copy_to_device(target, buffer.address + start, size, self._stream)

    def flush(self) -> None:
        """Wait for all that was sent."""
        self._driver.make_current()
        self._driver.stream_synchronize(self._stream)

    def close(self) -> None:
        """Nobody may have a buffer any more."""
        self._undo.close()
