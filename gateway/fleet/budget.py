"""What a device and the host have left, from the configured limits and the system's own numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from engine import CheckpointError, Engine, EngineOptions, Estimate, Footprint, Level, MemoryState
from gateway.config import MemoryConfig, ModelConfig
from gateway.fleet.snapshot import Budget
from gateway.units import format_shortage


class Backend(Protocol):
    """Where engines come from; the ``engine`` package is one."""

    def open(self, path: str, device: str = ..., options: EngineOptions | None = ...) -> Engine: ...

    def estimate(
        self, path: str, options: EngineOptions | None = ..., device: str = ...
    ) -> Estimate | None: ...

    def max_model_len(self, path: str, options: EngineOptions | None = ...) -> int | None: ...

    def memory_state(self, device: str = ...) -> MemoryState: ...

    def limit_memory(self, device: str, limit: int, host_limit: int) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """One memory, in bytes: ``used`` is ours, ``available`` what the system could still give."""

    total: int
    limit: int
    used: int
    available: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An engine, the device that it is on, and what its checkpoint's headers tell."""

    engine: Engine
    device: str
    estimate: Estimate | None


class Memory:
    """The memories of a machine, under the configured limits."""

    def __init__(self, config: MemoryConfig, backend: Backend) -> None:
        self._config = config
        self._backend = backend
        self._shared: dict[str, bool] = {}
        self._in_use: set[str] = set()
        """Devices with engines, as the configuration calls them."""

    def configure(self, config: MemoryConfig) -> None:
        """Other limits from now on."""
        self._config = config
        for device in tuple(self._in_use):
            limit = self.device(self.device_name(device), ()).limit
            self._backend.limit_memory(device, limit, self.host(()).limit)

    def open(self, config: ModelConfig) -> Opened:
        """Open an engine whose KV leaves room for its own weights, however the limit is raised. Blocking."""
        device = self.device_name(config.device)
        options = config.engine_options()
        estimate = self._backend.estimate(config.path, options, device)
        weights = estimate.weights_bytes if estimate else 0
        pool = self.device(device, ())
        options = replace(options, device_limit=pool.limit, kv_limit=max(0, pool.total - weights))
        options = replace(options, host_limit=self.host(()).limit, copy_early=config.level != 2)
        engine = self._backend.open(config.path, config.device, options)
        self._in_use.add(config.device)
        return Opened(engine=engine, device=device, estimate=estimate)

    def lengths(self, configs: Iterable[ModelConfig]) -> list[int | None]:
        """Each model's ``max_model_len``; None where its files are not here, or are broken. Blocking."""
        return [self._length(config) for config in configs]

    def _length(self, config: ModelConfig) -> int | None:
        try:
            return self._backend.max_model_len(config.path, config.engine_options())
        except CheckpointError:
            return None  # opening it will say why

    def device(self, device: str, footprints: Iterable[Footprint]) -> Pool:
        """The memory of ``device``, on which ``footprints`` live."""
        state = self._backend.memory_state(device)
        used = sum(footprint.device for footprint in footprints)
        return _pool(state, self._config.device_limit.of(state.total), used)

    def host(self, footprints: Iterable[Footprint]) -> Pool:
        """The part of the host's memory that parked weights may take."""
        state = self._backend.memory_state("cpu")
        used = sum(footprint.host_copy for footprint in footprints)
        return _pool(state, self._config.host_limit.of(state.total), used)

    def budget(self, device: str, used: int, parked: int) -> Budget:
        """What is left beside the ``used`` bytes of the device and the ``parked`` ones of the host, told by
        the system anew. Less than nothing available: so much is to be given back."""
        state = self._backend.memory_state(device)
        host = state if state.shared_with_host else self._backend.memory_state("cpu")
        return Budget(
            device_limit=self._config.device_limit.of(state.total),
            device_used=used,
            device_available=state.available,
            host_limit=self._config.host_limit.of(host.total),
            host_parked=parked,
            host_available=host.available,
            shared_pool=state.shared_with_host,
        )

    def is_short(self, devices: Iterable[str]) -> bool:
        """Whether the host or a device has less than its reserve left, whoever took it."""
        return any(self._backend.memory_state(device).available < 0 for device in {"cpu", *devices})

    def too_large(self, device: str, estimate: Estimate | None) -> str | None:
        """Why a model can never be awake within the configured limit; None: it can, as far as is known."""
        if estimate is None:
            return None
        needed = estimate.least_bytes
        limit = self.device(self.device_name(device), ()).limit
        if needed <= limit:
            return None
        wanted, allowed = format_shortage(needed, limit)
        return f"needs {wanted} for its weights and first KV, and memory.device_limit allows {allowed}"

    def bytes_asleep(self, device: str, footprint: Footprint, level: Level) -> int:
        """What a model will hold on the device when asleep at ``level``."""
        if level == 1 and self._is_shared(device):
            return footprint.weights + footprint.residue
        return footprint.residue

    def _is_shared(self, device: str) -> bool:
        """Whether the device's memory is the host's."""
        if device not in self._shared:
            self._shared[device] = self._backend.memory_state(device).shared_with_host
        return self._shared[device]

    def device_name(self, device: str) -> str:
        """One name for each device, however the configuration calls it."""
        if self._is_shared(device):
            return "cpu"
        return "cuda:0" if device in ("auto", "cuda") else device


def _pool(state: MemoryState, limit: int, used: int) -> Pool:
    return Pool(total=state.total, limit=limit, used=used, available=max(0, state.available))
