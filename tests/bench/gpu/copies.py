"""What the sizes cost that are constants of the engine so far, and which calls wait for other streams."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import torch

from engine.checkpoint import Checkpoint
from engine.info import read_config
from engine.memory.cuda import CudaArena, tensor_factory
from engine.memory.cuda_driver import CudaDriver, cuda_driver
from engine.memory.host import LockedMemory
from engine.memory.ring import Ring
from engine.memory.transfer import commit_from
from engine.model import make_layout
from engine.ring_reader import RingReader
from engine.types import EngineOptions
from engine.weights import Layout
from tests.bench.gpu import card
from tests.bench.gpu.card import GIB
from tests.bench.gpu.checkpoints import checkpoint
from tests.bench.gpu.result import Result

MIB = 2**20
CHUNKS = (16, 64, 256, 1024)
RINGS = ((4, 8), (8, 8), (16, 8), (16, 2), (16, 32))
"""Buffers, and MiB of each."""
RANGE, COPIED, LOCKED = 8 * GIB, 4 * GIB, 4 * GIB
_CYCLES = 1_000_000_000
"""Of a kernel that does nothing: about half a second."""


def measure(result: Result, work: Path) -> None:
    card.trim()
    driver = cuda_driver("cuda:0")
    driver.make_current()
    card.finish()
    path = checkpoint(work, "0.6b", card.DEVICE)
    steps: dict[str, Callable[[], None]] = {
        "waiting": lambda: waiting(result, driver),
        "chunks": lambda: chunks(result, driver),
        "rings": lambda: rings(result, driver, path),
        "locking": lambda: locking(result, driver),
    }
    for name, step in steps.items():
        try:
            step()
        except Exception as error:
            result.failure(name, error)


def timed(work: Callable[..., object], *arguments: object) -> float:
    """Seconds."""
    began = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - began


def chunks(result: Result, driver: CudaDriver) -> None:
    """Mapping alone, and mapping while what is mapped is copied; the best of three."""
    copy = LockedMemory(driver, COPIED)
    for size in CHUNKS:
        arena = CudaArena(driver, RANGE, make_tensor=tensor_factory(card.DEVICE), chunk=size * MIB)
        took: list[list[float]] = [[], [], []]
        for _ in range(3):
            took[0].append(timed(commit, arena, RANGE))
            took[1].append(timed(arena.release, 0, RANGE))
            took[2].append(timed(commit_copied, driver, arena, copy))
            arena.release(0, copy.size)
        mapped, unmapped, copied = map(min, took)
        result.number(f"map_ms_per_gib_{size}mib", mapped / (RANGE / GIB) * 1e3)
        result.number(f"unmap_ms_per_gib_{size}mib", unmapped / (RANGE / GIB) * 1e3)
        result.number(f"wake_gb_s_{size}mib", copy.size / copied / 1e9)
        arena.close()
    copy.close()


def commit(arena: CudaArena, length: int) -> None:
    with arena.commit(0, length):
        pass


def commit_copied(driver: CudaDriver, arena: CudaArena, copy: LockedMemory) -> None:
    with commit_from(driver, arena, copy, copy.size):
        pass


def locking(result: Result, driver: CudaDriver) -> None:
    """Taking RAM for a copy in the product's way, and giving it back; against torch's."""
    taken: list[LockedMemory] = []
    result.number(
        "lock_seconds_per_gib", timed(lambda: taken.append(LockedMemory(driver, LOCKED))) / (LOCKED / GIB)
    )
    result.number("unlock_seconds_per_gib", timed(taken[0].close) / (LOCKED / GIB))
    result.number(
        "torch_pins_seconds_per_gib",
        timed(lambda: torch.empty(2 * GIB, dtype=torch.uint8, pin_memory=True)) / 2,
    )


def rings(result: Result, driver: CudaDriver, path: Path) -> None:
    """Reading files from memory through rings of several sizes; the better of three, for each."""
    opened = Checkpoint(path)
    layout = make_layout(opened, read_config(opened), EngineOptions())
    arena = CudaArena(driver, layout.nbytes, make_tensor=tensor_factory(card.DEVICE))
    with arena.commit(0, arena.size):
        for count, size in RINGS:
            ring = Ring(driver, count, size * MIB)
            took = [timed(read, ring, arena, layout) for _ in range(3)]
            result.number(f"read_gb_s_ring_of_{count}x{size}mib", layout.nbytes / min(took) / 1e9)
            ring.close()
    arena.close()


def read(ring: Ring, arena: CudaArena, layout: Layout) -> None:
    RingReader(ring, arena.address, lambda size: None).read(layout.shards, layout.slices, layout.dtype)


def waiting(result: Result, driver: CudaDriver) -> None:
    """Each call while a kernel runs on a stream that has nothing to do with it: whether that is over when the
    call returns."""
    stream = torch.cuda.Stream(card.DEVICE)  # type: ignore[no-untyped-call]
    busy(stream, 1000)
    size = 256 * MIB
    with ExitStack() as stack:
        address = driver.address_reserve(size)
        stack.callback(driver.address_free, address, size)
        handles: list[int] = []
        locked: list[LockedMemory] = []
        calls: list[tuple[str, Callable[[], object]]] = [
            ("create", lambda: handles.append(driver.mem_create(size))),
            ("map", lambda: driver.mem_map(address, size, handles[0])),
            ("set_access", lambda: driver.mem_set_access(address, size)),
            ("unmap", lambda: driver.mem_unmap(address, size)),
            ("release", lambda: driver.mem_release(handles[0])),
            ("register", lambda: locked.append(LockedMemory(driver, 64 * MIB))),
            ("unregister", lambda: locked[0].close()),
        ]
        for name, call in calls:
            busy(stream, _CYCLES)
            took = timed(call)
            waited = stream.query()
            stream.synchronize()
            result.number(f"{name}_ms_beside_a_kernel", took * 1e3)
            result.number(f"{name}_waits_for_other_streams", float(waited))


def busy(stream: torch.cuda.Stream, cycles: int) -> None:
    with torch.cuda.stream(stream):
        torch.cuda._sleep(cycles)  # type: ignore[no-untyped-call]
