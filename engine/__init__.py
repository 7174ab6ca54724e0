"""The seam: everything that the gateway may use of an engine. Importing it imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from engine.imports import quick_imports
from engine.protocol import Engine
from engine.threads import spin_briefly
from engine.types import (
    ALL_TAGS,
    CheckpointError,
    Constraint,
    ConstraintKind,
    Delta,
    DeviceError,
    DType,
    EngineError,
    EngineOptions,
    Estimate,
    FinishReason,
    Footprint,
    GenerateRequest,
    Grammar,
    Kind,
    Level,
    MemoryState,
    ModelInfo,
    OutOfMemory,
    Progress,
    RequestError,
    SamplingParams,
    Tag,
    TokenLogprob,
    TransitionReport,
)

__all__ = [
    "ALL_TAGS",
    "CheckpointError",
    "Constraint",
    "ConstraintKind",
    "DType",
    "Delta",
    "DeviceError",
    "Engine",
    "EngineError",
    "EngineOptions",
    "Estimate",
    "FinishReason",
    "Footprint",
    "GenerateRequest",
    "Grammar",
    "Kind",
    "Level",
    "MemoryState",
    "ModelInfo",
    "OutOfMemory",
    "Progress",
    "RequestError",
    "SamplingParams",
    "Tag",
    "TokenLogprob",
    "TransitionReport",
    "cached_repositories",
    "download",
    "estimate",
    "limit_memory",
    "max_model_len",
    "memory_state",
    "only_gguf",
    "open",
    "weight_files",
]

spin_briefly()


def open(path: str, device: str = "auto", options: EngineOptions | None = None) -> Engine:
    """Open the checkpoint at ``path`` (a directory, or a hub id) for ``device``.

    Reads config, tokenizer and template (downloading just these for a hub id), never weights. Blocking:
    call it off the loop. ``device`` is ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    Raises CheckpointError.
    """
    with quick_imports():
        from engine.engine import TorchEngine

    return TorchEngine(path, device, options or EngineOptions())


def estimate(path: str, options: EngineOptions | None = None, device: str = "cpu") -> Estimate | None:
    """What the checkpoint would take on ``device``, from headers alone; None for a hub id that is not here
    yet.

    Raises CheckpointError for a directory that cannot be served.
    """
    from engine.info import estimate_checkpoint
    from engine.memory.cuda_driver import page_of

    return estimate_checkpoint(path, options or EngineOptions(), page_of(device))


def max_model_len(path: str, options: EngineOptions | None = None) -> int | None:
    """What ``ModelInfo`` will say when the checkpoint is opened, from its small files alone; None for a hub
    id that is not here yet. Blocking. Raises CheckpointError."""
    from engine.info import length_of

    return length_of(path, options or EngineOptions())


def download(path: str, revision: str = "main", on_bytes: Callable[[int, int], None] | None = None) -> str:
    """Fetch what is not here yet of a hub checkpoint that can be served; the directory where it lies then.
    That of a ``path`` which is one is its own. ``on_bytes`` is told the bytes done and in all. Blocking.

    Raises CheckpointError.
    """
    from engine.downloading import download_checkpoint

    return download_checkpoint(path, revision, on_bytes or (lambda done, total: None))


def weight_files(path: str, revision: str = "main") -> list[Path]:
    """The files that a wake of the checkpoint would read; none of one that is not here whole."""
    from engine import info

    return info.weight_files(path, revision)


def cached_repositories() -> list[str]:
    """Hub ids of which files are on this machine, whole or not; the directory of one that has no owner."""
    from engine import hub

    return list(hub.cached_repositories())


def only_gguf(repo_id: str) -> bool:
    """Whether the weights of a hub id that are on this machine are GGUF files, which cannot be served."""
    from engine import hub

    return hub.only_gguf(repo_id)


def memory_state(device: str = "cpu") -> MemoryState:
    """The memory of ``device`` as it is now. Imports no torch. Raises EngineError when there is none."""
    from engine.memory.cuda_driver import cuda_driver, cuda_ordinal, device_name
    from engine.memory.driver import memory_state
    from engine.memory.system import system
    from engine.memory.torch_cache import kept_by_torch

    name = device_name(device)
    if name == "cpu":
        return system.state()
    state, kept = memory_state(cuda_driver(name)), kept_by_torch(cuda_ordinal(name) or 0)
    return replace(state, available=state.available + kept)


def limit_memory(device: str, limit: int, host_limit: int) -> None:
    """The most bytes that all engines opened on ``device`` may hold together, from now on; and those that
    they may lock of the host's beside a device with memory of its own. Blocking."""
    from engine.devices import get_device

    get_device(device).limit_memory(limit, host_limit)
