"""The calls of the CUDA driver that memory needs, on one device, and the errors that they have.

Everything else goes through ``Driver``, so that tests put one behind it that keeps account of every call.
Addresses, handles, streams and events are plain ints; sizes are in bytes.
"""

from __future__ import annotations

from typing import Protocol

from engine.types import DeviceError, EngineError, MemoryState

_OUT_OF_MEMORY = "CUDA_ERROR_OUT_OF_MEMORY"
_STICKY = frozenset(
    f"CUDA_ERROR_{name}"
    for name in (
        "ASSERT",
        "CONTAINED",
        "CONTEXT_IS_DESTROYED",
        "DEINITIALIZED",
        "DEVICE_UNAVAILABLE",
        "ECC_UNCORRECTABLE",
        "EXTERNAL_DEVICE",
        "HARDWARE_STACK_ERROR",
        "ILLEGAL_ADDRESS",
        "ILLEGAL_INSTRUCTION",
        "INVALID_ADDRESS_SPACE",
        "INVALID_PC",
        "LAUNCH_FAILED",
        "LAUNCH_TIMEOUT",
        "MISALIGNED_ADDRESS",
        "NVLINK_UNCORRECTABLE",
        "TENSOR_MEMORY_LEAK",
        "UNKNOWN",
    )
)
"""After these every later call fails too."""


class DriverError(EngineError):
    """A call that the driver refused. ``name``: that of the error, as CUDA_ERROR_INVALID_VALUE."""

    def __init__(self, call: str, name: str) -> None:
        super().__init__(f"{call}: {name}")
        self.call = call
        self.name = name

    @property
    def out_of_memory(self) -> bool:
        return self.name == _OUT_OF_MEMORY


def driver_error(call: str, name: str) -> EngineError:
    """DriverError, or DeviceError where nothing on the device can go on."""
    return DeviceError(f"{call}: {name}") if name in _STICKY else DriverError(call, name)


class Driver(Protocol):
    """Every call raises DriverError or DeviceError. All but ``make_current`` need the device's context on the
    thread that calls."""

    def make_current(self) -> None:
        """The device's primary context, which torch uses too, on the calling thread from now on."""

    # Memory of the device

    def allocation_granularity(self) -> int:
        """Sizes of memory and of mappings are multiples of this."""

    def address_reserve(self, size: int) -> int: ...

    def address_free(self, address: int, size: int) -> None:
        """The whole of a range that was reserved, nothing mapped in it."""

    def mem_create(self, size: int) -> int:
        """The handle of memory that is mapped nowhere yet."""

    def mem_release(self, handle: int) -> None:
        """The memory goes back when it is mapped nowhere either."""

    def mem_map(self, address: int, size: int, handle: int) -> None:
        """All of the handle's memory, within a range that is reserved."""

    def mem_unmap(self, address: int, size: int) -> None:
        """What was mapped by one call. Nothing that touches it may be under way."""

    def mem_set_access(self, address: int, size: int) -> None:
        """Let the device read and write one or more neighbouring mappings."""

    def mem_get_info(self) -> tuple[int, int]:
        """Free and in all, on the device."""

    # Memory of the host, and copies

    def host_register(self, address: int, size: int) -> None:
        """Lock whole pages of the process's memory, for copies that run by themselves."""

    def host_unregister(self, address: int) -> None: ...

    def copy_to_device(self, target: int, source: int, size: int, stream: int) -> None:
        """Queue a copy from locked memory, which must stay as it is until the stream has come by."""

    def copy_to_host(self, target: int, source: int, size: int, stream: int) -> None:
        """The same in the other direction."""

    # Streams and events

    def stream_create(self) -> int:
        """One that waits for no other."""

    def stream_synchronize(self, stream: int) -> None: ...

    def stream_destroy(self, stream: int) -> None: ...

    def event_create(self) -> int: ...

    def event_record(self, event: int, stream: int) -> None:
        """It happens when all that is queued on the stream by now is done."""

    def event_synchronize(self, event: int) -> None:
        """At once, if it was never recorded."""

    def event_destroy(self, event: int) -> None: ...


def memory_state(driver: Driver) -> MemoryState:
    """The device's memory as it is now, whoever holds what is not free."""
    driver.make_current()
    free, total = driver.mem_get_info()
    return MemoryState(total=total, available=free, shared_with_host=False)
