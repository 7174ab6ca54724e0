"""Which devices there are in this process: one for each name, made when it is first asked for."""

from __future__ import annotations

import os
import threading
from functools import partial

import torch

from engine.cuda_graphs import CudaGraphs
from engine.cuda_store import CudaStore, SharedRing
from engine.device import Device
from engine.graphs import GraphRecorder
from engine.memory.budget import Budget
from engine.memory.copies import HostCopies
from engine.memory.cpu import CpuArena, tune_allocator
from engine.memory.cuda import CudaArena, TensorFactory, tensor_factory
from engine.memory.cuda_driver import cuda_driver, device_name
from engine.memory.driver import Driver
from engine.memory.ring import Ring
from engine.memory.sizes import HUGE_PAGE, round_up
from engine.memory.torch_cache import give_back
from engine.pace import OneLayerAhead, computed_at_once
from engine.types import EngineError

_KERNELS = "64"
"""Products of so many shapes stay compiled, by oneDNN and by torch. Each holds half a MiB, and takes half a
millisecond to make."""

_RING, _RING_BUFFER = 16, 8 * 2**20
"""Buffers through which weights are read onto a device, and bytes of each. To be chosen by measurement."""

_devices: dict[str, Device] = {}
_devices_lock = threading.Lock()


def get_device(name: str) -> Device:
    """The one device of this name. Raises EngineError when there is none."""
    name = device_name(name)
    with _devices_lock:
        if name not in _devices:
            _devices[name] = cpu_device() if name == "cpu" else _torchs_device(name)
        return _devices[name]


def _torchs_device(name: str) -> Device:
    """A CUDA device that torch computes on."""
    if not torch.cuda.is_available():
        raise EngineError(f"no such device here: {name} (this torch is not made for CUDA)")
    device = torch.device(name)
    torch.zeros(1, device=device)  # torch's own of the context, before there is anything else
    return cuda_device(cuda_driver(name), name, graphs=CudaGraphs(device))


def cpu_device() -> Device:
    tune_allocator()
    for cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(cache, _KERNELS)
    budget = Budget()
    return Device("cpu", partial(CpuArena, budget=budget), budget)


def cuda_device(
    driver: Driver,
    name: str,
    make_tensor: TensorFactory | None = None,
    graphs: GraphRecorder | None = None,
) -> Device:
    """``make_tensor``: None makes tensors over the memory of the device ``name``."""
    driver.make_current()
    budget, device = Budget(), torch.device(name)
    make_tensor = make_tensor or tensor_factory(device)
    finish = partial(finish_steps, device)
    copies = HostCopies(driver, set_aside=round_up(_RING * _RING_BUFFER, HUGE_PAGE))
    ring = SharedRing(partial(copies.find_room, partial(Ring, driver, _RING, _RING_BUFFER)))
    return Device(
        name,
        partial(CudaArena, driver, make_tensor=make_tensor, budget=budget, finish=finish, relieve=give_back),
        budget,
        partial(CudaStore, driver, copies, ring),
        page=driver.allocation_granularity(),
        graphs=graphs,
        pace=OneLayerAhead(device) if device.type == "cuda" else computed_at_once,
        copies=copies,
    )


def finish_steps(device: torch.device) -> None:
    """Nothing of a step is under way on the device any more."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()
