"""What this machine has to serve models with, and which it has."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import engine
from engine import EngineError, Estimate, MemoryState

DEMO: Final = Path(engine.__file__).parent / "demo"
NOT_WHOLE: Final = "only partly downloaded; `dormouse pull` fetches the rest"
GGUF: Final = "its weights here are GGUF files; safetensors can be served"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    name: str
    path: str
    """A hub id in the cache, or an absolute directory."""
    estimate: Estimate | None
    """None: it cannot be served."""
    reason: str = ""
    """Why not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    device: str
    cores: int
    memory: MemoryState
    """Of the device."""
    host: MemoryState


def machine() -> Machine:
    host = engine.memory_state("cpu")
    device, memory = "cpu", host
    with suppress(EngineError):  # there is none
        device, memory = "cuda", engine.memory_state("cuda")
    return Machine(device=device, cores=len(os.sched_getaffinity(0)), memory=memory, host=host)


def checkpoints(directories: Sequence[Path]) -> list[Found]:
    """Of the Hugging Face cache, and those that are or lie in ``directories``, each by a name of its own."""
    paths = [*engine.cached_repositories(), *map(str, _inside(directories))]
    names = _names(paths)
    return [_examined(name, path) for name, path in zip(names, paths, strict=True)]


def demo_models() -> list[Found]:
    """Those that come with Dormouse."""
    return [_examined(name, str(DEMO / name)) for name in ("demo-a", "demo-b")]


def _inside(directories: Sequence[Path]) -> Iterator[Path]:
    for directory in directories:
        whole = (directory / "config.json").is_file()
        for pattern in ("config.json",) if whole else ("*/config.json", "*/*/config.json"):
            yield from (config.parent.resolve() for config in sorted(directory.glob(pattern)))


def _names(paths: Sequence[str]) -> list[str]:
    """The last parts of the paths, with the one before it where two are the same, with a number where that
    does not help."""
    short = [_short(path) for path in paths]
    names: list[str] = []
    for path, name in zip(paths, short, strict=True):
        if short.count(name) > 1:
            name = "/".join(path.split("/")[-2:])
        number = 2
        plain = name
        while name in names:
            name, number = f"{plain}-{number}", number + 1
        names.append(name)
    return names


def _short(path: str) -> str:
    """A snapshot in the cache is called by its repository, not by its commit."""
    repository = Path(path.rpartition("/snapshots/")[0]).name
    kind, _, name = repository.partition("--")
    return name.rpartition("--")[2] if kind == "models" else path.rpartition("/")[2]


def _examined(name: str, path: str) -> Found:
    if "${" in path or not path.isprintable():
        return Found(
            name=name, path=path, estimate=None, reason="its path cannot be written in a config.toml"
        )
    try:
        estimate = engine.estimate(path)
    except engine.CheckpointError as error:
        return Found(name=name, path=path, estimate=None, reason=error.reason)
    reason = "" if estimate else GGUF if engine.only_gguf(path) else NOT_WHOLE
    return Found(name=name, path=path, estimate=estimate, reason=reason)
