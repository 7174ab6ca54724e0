"""CUDA's driver itself, through the bindings that torch's CUDA wheels bring: generation 12.9, or 13."""

from __future__ import annotations

import importlib
from contextlib import suppress
from functools import cache
from typing import Any

from engine.memory.driver import driver_error
from engine.memory.sizes import HUGE_PAGE, PAGE
from engine.types import DeviceError, EngineError


def cuda_ordinal(name: str) -> int | None:
    """Which CUDA device a name means: ``cuda``, or ``cuda:N``; None: another kind of device."""
    kind, _, number = name.partition(":")
    return int(number or 0) if kind == "cuda" and (number.isdecimal() or not number) else None


@cache
def device_name(name: str) -> str:
    """What a device is called once it has been looked for: ``cpu`` or ``cuda:N``. ``auto`` is the first CUDA
    device, where there is one. Raises EngineError for one that is not here."""
    if name == "auto":
        with suppress(EngineError):
            return device_name("cuda")
        return "cpu"
    if name == "cpu":
        return name
    ordinal = cuda_ordinal(name)
    if ordinal is None:
        raise EngineError(f"no such device here: {name}")
    cuda_driver(name)
    return f"cuda:{ordinal}"


def page_of(name: str) -> int:
    """Bytes of the smallest piece of memory that the device of this name has, or would have if it was
    here."""
    if cuda_ordinal(name) is None and device_name(name) == "cpu":
        return PAGE
    return HUGE_PAGE


@cache
def cuda_driver(name: str) -> CudaDriver:
    """That of the device of this name. Raises EngineError where there is none."""
    try:
        return CudaDriver(cuda_ordinal(name) or 0)
    except EngineError as error:
        raise EngineError(f"no such device here: {name} ({error})") from error


class CudaDriver:
    """See ``Driver``. The primary context is retained for the life of the process."""

    def __init__(self, ordinal: int = 0) -> None:
        """Raises EngineError where there is no such device, no driver, or no bindings to it."""
        try:
            self._cuda = importlib.import_module("cuda.bindings.driver")
        except ImportError as error:
            raise EngineError(f"no cuda-bindings here: {error}") from error
        self._call("cuInit", 0)
        (device,) = self._call("cuDeviceGet", ordinal)
        (self._context,) = self._call("cuDevicePrimaryCtxRetain", device)
        self._memory, self._access = self._descriptions(ordinal)

    def _descriptions(self, ordinal: int) -> tuple[Any, Any]:
        """Memory of the device, and the right to read and write it there."""
        cuda = self._cuda
        memory, access = cuda.CUmemAllocationProp(), cuda.CUmemAccessDesc()
        memory.type = cuda.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
        for location in (memory.location, access.location):
            location.type = cuda.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
            location.id = ordinal
        access.flags = cuda.CUmemAccess_flags.CU_MEM_ACCESS_FLAGS_PROT_READWRITE
        return memory, access

    def _call(self, name: str, *arguments: Any) -> tuple[Any, ...]:
        """What the call answers behind its result."""
        try:
            result, *values = getattr(self._cuda, name)(*arguments)
        except RuntimeError as error:  # the bindings found no driver, or an older one without this call
            raise EngineError(f"no CUDA driver here: {error}") from error
        except (KeyError, ValueError) as error:
            raise DeviceError(f"{name}: an error that is newer than the bindings") from error
        if result != 0:
            raise driver_error(name, result.name)
        return tuple(values)

    def make_current(self) -> None:
        self._call("cuCtxSetCurrent", self._context)

    def allocation_granularity(self) -> int:
        least = self._cuda.CUmemAllocationGranularity_flags.CU_MEM_ALLOC_GRANULARITY_MINIMUM
        (size,) = self._call("cuMemGetAllocationGranularity", self._memory, least)
        return int(size)

    def address_reserve(self, size: int) -> int:
        (address,) = self._call("cuMemAddressReserve", size, 0, 0, 0)
        return int(address)

    def address_free(self, address: int, size: int) -> None:
        self._call("cuMemAddressFree", address, size)

    def mem_create(self, size: int) -> int:
        (handle,) = self._call("cuMemCreate", size, self._memory, 0)
        return int(handle)

    def mem_release(self, handle: int) -> None:
        self._call("cuMemRelease", handle)

    def mem_map(self, address: int, size: int, handle: int) -> None:
        self._call("cuMemMap", address, size, 0, handle, 0)

    def mem_unmap(self, address: int, size: int) -> None:
        self._call("cuMemUnmap", address, size)

    def mem_set_access(self, address: int, size: int) -> None:
        self._call("cuMemSetAccess", address, size, [self._access], 1)

    def mem_get_info(self) -> tuple[int, int]:
        free, total = self._call("cuMemGetInfo")
        return int(free), int(total)

    def host_register(self, address: int, size: int) -> None:
        self._call("cuMemHostRegister", address, size, self._cuda.CU_MEMHOSTREGISTER_PORTABLE)

    def host_unregister(self, address: int) -> None:
        self._call("cuMemHostUnregister", address)

    def copy_to_device(self, target: int, source: int, size: int, stream: int) -> None:
        self._call("cuMemcpyHtoDAsync", target, source, size, stream)

    def copy_to_host(self, target: int, source: int, size: int, stream: int) -> None:
        self._call("cuMemcpyDtoHAsync", target, source, size, stream)

    def stream_create(self) -> int:
        # Not ordered with the default stream, on which torch computes.
        (stream,) = self._call("cuStreamCreate", self._cuda.CUstream_flags.CU_STREAM_NON_BLOCKING)
        return int(stream)

    def stream_synchronize(self, stream: int) -> None:
        self._call("cuStreamSynchronize", stream)

    def stream_destroy(self, stream: int) -> None:
        self._call("cuStreamDestroy", stream)

    def event_create(self) -> int:
        flags = self._cuda.CUevent_flags  # who waits sleeps meanwhile, and needs no times
        (event,) = self._call("cuEventCreate", flags.CU_EVENT_BLOCKING_SYNC | flags.CU_EVENT_DISABLE_TIMING)
        return int(event)

    def event_record(self, event: int, stream: int) -> None:
        self._call("cuEventRecord", event, stream)

    def event_synchronize(self, event: int) -> None:
        self._call("cuEventSynchronize", event)

    def event_destroy(self, event: int) -> None:
        self._call("cuEventDestroy", event)
