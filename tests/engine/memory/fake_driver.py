"""A CUDA driver that keeps real account in RAM, refuses every misuse, and fails where a test tells it to."""

from __future__ import annotations

import ctypes
import mmap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from engine.memory.driver import driver_error
from tests.engine.memory.fake_streams import FakeStreams, Work

GRANULARITY = 16 * 4096
FRESH, GONE = 0xDD, 0xEE
"""What memory holds that was just mapped, and an address that has none."""


class Misuse(AssertionError):
    """A call that a real driver answers with an error, or with a broken context."""


def plain_memory(size: int) -> mmap.mmap:
    """Anonymous and page-aligned."""
    return mmap.mmap(-1, size)


def address_of(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def _overlap(one: range, other: range) -> bool:
    return one.start < other.stop and other.start < one.stop


def _within(one: range, other: range) -> bool:
    return other.start <= one.start and one.stop <= other.stop


class FakeDriver:
    """See ``engine.memory.driver.Driver``. ``memory``: bytes that the device has."""

    def __init__(self, *, memory: int = 64 * 2**20, lazy: bool = True) -> None:
        self.memory = memory
        self.calls: list[tuple[Any, ...]] = []
        """Each with its arguments; those that failed too."""
        self.misuses: list[str] = []
        self.failing: Callable[[int, str], str | None] = lambda index, call: None
        """Number and name of a call → the error that it shall have."""
        self.reserved: dict[int, range] = {}
        self.handles: dict[int, int] = {}
        self.mappings: dict[int, tuple[range, int]] = {}
        self.accessible: set[int] = set()
        self.registered: dict[int, range] = {}
        self.streams = FakeStreams(lazy=lazy)
        self._current: set[int] = set()
        self._kept: list[mmap.mmap] = []
        """Addresses are never used again."""
        self._lock = threading.RLock()
        self._handles = iter(range(0xA000, 0xFFFFF))

    # For tests

    def tensor(self, address: int, size: int) -> torch.Tensor:
        """Makes tensors for an arena."""
        return torch.frombuffer((ctypes.c_char * size).from_address(address), dtype=torch.uint8)

    def fail(self, call: str, number: int = 1, error: str = "CUDA_ERROR_INVALID_VALUE") -> None:
        """Let the ``number``th call of this name fail, counted from now."""
        left = [number]

        def failing(index: int, name: str) -> str | None:
            left[0] -= name == call
            return error if name == call and left[0] == 0 else None

        self.failing = failing

    def breaks(self, call: str, error: str) -> None:
        """Let every call fail from the first of this name on."""
        broken: list[str] = []

        def failing(index: int, name: str) -> str | None:
            broken.extend([error] if name == call else [])
            return broken[0] if broken else None

        self.failing = failing

    @property
    def names(self) -> list[str]:
        return [name for name, *_ in self.calls if name != "make_current"]

    @property
    def used(self) -> int:
        """Bytes of the device's memory."""
        return sum(self.handles.values())

    def assert_clean(self) -> None:
        """Nothing was misused, and nothing is left."""
        assert not self.misuses, self.misuses
        assert not self.reserved, "address ranges are left"
        assert not self.registered, "host memory is still registered"
        assert not self.streams.open, "streams or events are left"
        self.assert_idle()

    def assert_idle(self) -> None:
        """No memory of the device is held, and nothing is under way."""
        assert not self.misuses, self.misuses
        assert not self.mappings and not self.accessible, "mappings are left"
        assert not self.handles, "memory is left"
        assert not list(self.streams.pending()), "copies are under way"

    @contextmanager
    def _call(self, name: str, *arguments: int, context: bool = True) -> Iterator[None]:
        with self._lock:
            self.calls.append((name, *arguments))
            if context and threading.get_ident() not in self._current:
                self._misuse(f"{name} without a current context")
            error = self.failing(len(self.calls) - 1, name)
            if error:
                raise driver_error(name, error)
            yield

    def _misuse(self, what: str) -> None:
        self.misuses.append(what)
        raise Misuse(what)

    def _require(self, condition: bool, what: str) -> None:
        if not condition:
            self._misuse(what)

    def _aligned(self, *sizes: int) -> None:
        self._require(all(size % GRANULARITY == 0 for size in sizes), f"{sizes} are not aligned")

    # The context

    def make_current(self) -> None:
        with self._call("make_current", context=False):
            self._current.add(threading.get_ident())

    def lose_context(self) -> None:
        """As if somebody else had made another current on this thread."""
        self._current.discard(threading.get_ident())

    # Memory of the device

    def allocation_granularity(self) -> int:
        with self._call("allocation_granularity"):
            return GRANULARITY

    def address_reserve(self, size: int) -> int:
        with self._call("address_reserve", size):
            self._aligned(size)
            self._require(size > 0, "an empty reservation")
            self._kept.append(plain_memory(size + GRANULARITY))
            address = -(-address_of(self._kept[-1]) // GRANULARITY) * GRANULARITY
            self.reserved[address] = range(address, address + size)
            return address

    def address_free(self, address: int, size: int) -> None:
        with self._call("address_free", address, size):
            own = self.reserved.get(address)
            self._require(own == range(address, address + size), "free of what was not reserved so")
            mapped = any(_overlap(one, range(address, address + size)) for one, _ in self.mappings.values())
            self._require(not mapped, "free of a range with mappings in it")
            del self.reserved[address]

    def mem_create(self, size: int) -> int:
        with self._call("mem_create", size):
            self._aligned(size)
            self._require(size > 0, "empty memory")
            if self.used + size > self.memory:
                raise driver_error("mem_create", "CUDA_ERROR_OUT_OF_MEMORY")
            handle = next(self._handles)
            self.handles[handle] = size
            return handle

    def mem_release(self, handle: int) -> None:
        with self._call("mem_release", handle):
            self._require(handle in self.handles, "release of an unknown handle")
            mapped = any(one == handle for _, one in self.mappings.values())
            self._require(not mapped, "release of a handle that is mapped")
            del self.handles[handle]

    def mem_map(self, address: int, size: int, handle: int) -> None:
        with self._call("mem_map", address, size, handle):
            place = range(address, address + size)
            self._aligned(address, size)
            self._require(self.handles.get(handle) == size, "map of an unknown handle, or of a part of it")
            self._require(
                any(_within(place, r) for r in self.reserved.values()), "map of unreserved addresses"
            )
            self._require(not any(_overlap(place, r) for r, _ in self.mappings.values()), "mapped twice")
            self._require(not any(h == handle for _, h in self.mappings.values()), "a handle mapped twice")
            self.mappings[address] = place, handle
            ctypes.memset(address, FRESH, size)

    def mem_unmap(self, address: int, size: int) -> None:
        with self._call("mem_unmap", address, size):
            place, _ = self.mappings.get(address, (None, 0))
            self._require(place == range(address, address + size), "unmap of what was not mapped so")
            busy = any(
                _overlap(work.device, range(address, address + size)) for work in self.streams.pending()
            )
            self._require(not busy, "unmap while a copy is under way")
            del self.mappings[address]
            self.accessible.discard(address)
            ctypes.memset(address, GONE, size)

    def mem_set_access(self, address: int, size: int) -> None:
        with self._call("mem_set_access", address, size):
            inside = [r for r, _ in self.mappings.values() if _within(r, range(address, address + size))]
            self._require(sum(map(len, inside)) == size > 0, "access to what is not mapped")
            self.accessible.update(place.start for place in inside)

    def mem_get_info(self) -> tuple[int, int]:
        with self._call("mem_get_info"):
            return self.memory - self.used, self.memory

    # Memory of the host, and copies

    def host_register(self, address: int, size: int) -> None:
        with self._call("host_register", address, size):
            place = range(address, address + size)
            self._require(size > 0 and address % 4096 == size % 4096 == 0, "register of broken pages")
            self._require(not any(_overlap(place, r) for r in self.registered.values()), "registered twice")
            self.registered[address] = place

    def host_unregister(self, address: int) -> None:
        with self._call("host_unregister", address):
            self._require(address in self.registered, "unregister of what is not registered")
            place = self.registered[address]
            busy = any(_overlap(work.host, place) for work in self.streams.pending())
            self._require(not busy, "unregister while a copy is under way")
            del self.registered[address]

    def copy_to_device(self, target: int, source: int, size: int, stream: int) -> None:
        with self._call("copy_to_device", target, source, size, stream):
            self._copy(target, source, size, stream, locked=source, device=target)

    def copy_to_host(self, target: int, source: int, size: int, stream: int) -> None:
        with self._call("copy_to_host", target, source, size, stream):
            self._copy(target, source, size, stream, locked=target, device=source)

    def _copy(self, target: int, source: int, size: int, stream: int, *, locked: int, device: int) -> None:
        self._require(self.streams.has_stream(stream), "a copy on an unknown stream")
        host, remote = range(locked, locked + size), range(device, device + size)
        registered = any(_within(host, place) for place in self.registered.values())
        self._require(registered, "a copy from or to memory that is not locked")
        reached = [r for r, _ in self.mappings.values() if r.start in self.accessible]
        parts = sum(max(0, min(r.stop, remote.stop) - max(r.start, remote.start)) for r in reached)
        self._require(parts == size > 0, "a copy from or to memory without access")
        self.streams.queue(stream, Work(host, remote, lambda: ctypes.memmove(target, source, size)))

    # Streams and events

    def stream_create(self) -> int:
        with self._call("stream_create"):
            return self.streams.create_stream()

    def stream_synchronize(self, stream: int) -> None:
        with self._call("stream_synchronize", stream):
            self._require(self.streams.has_stream(stream), "an unknown stream")
            self.streams.synchronize(stream)

    def stream_destroy(self, stream: int) -> None:
        with self._call("stream_destroy", stream):
            self._require(self.streams.has_stream(stream), "an unknown stream")
            self._require(not list(self.streams.pending()), "a stream destroyed with work on it")
            self.streams.destroy_stream(stream)

    def event_create(self) -> int:
        with self._call("event_create"):
            return self.streams.create_event()

    def event_record(self, event: int, stream: int) -> None:
        with self._call("event_record", event, stream):
            known = self.streams.has_event(event) and self.streams.has_stream(stream)
            self._require(known, "an unknown event or stream")
            self.streams.record(event, stream)

    def event_synchronize(self, event: int) -> None:
        with self._call("event_synchronize", event):
            self._require(self.streams.has_event(event), "an unknown event")
            self.streams.wait(event)

    def event_destroy(self, event: int) -> None:
        with self._call("event_destroy", event):
            self._require(self.streams.has_event(event), "an unknown event")
            self.streams.destroy_event(event)
