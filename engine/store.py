"""Where a model's weights come from when it wakes, and what stays of them when it sleeps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from engine.checkpoint import Shard
from engine.memory.arena import Arena
from engine.reader import Reader, Slice


@dataclass(frozen=True, slots=True)
class Source:
    """Bytes in files. ``span``: so much of the arena they take, whole pages."""

    shards: Sequence[Shard]
    slices: Sequence[Slice]
    dtype: torch.dtype
    span: int


class Store(Protocol):
    """That of one model, over its arena."""

    @property
    def in_ram(self) -> bool:
        """Whether the arena is RAM itself, so that a light sleep leaves the weights where they are."""

    @property
    def done(self) -> int:
        """Bytes read so far by the fill under way, or by the last one."""

    @property
    def copied(self) -> int:
        """Bytes of RAM that hold the weights beside the arena."""

    def restart(self) -> None:
        """Nothing has been read."""

    def filled(self, source: Source) -> AbstractContextManager[None]:
        """Memory behind the arena's ``span``, and the weights in it when the body begins. If that or the body
        fails, the memory goes back. Raises OutOfMemory, CheckpointError, DeviceError."""

    def keep(self, source: Source) -> None:
        """Have what the arena holds in RAM too, for the next ``filled``. Raises OutOfMemory, having taken
        nothing."""

    def forget(self) -> None:
        """Give back the RAM beside the arena. Blocking, as all of these."""


class StoreFactory(Protocol):
    def __call__(self, arena: Any, /, *, copy_early: bool) -> Store:
        """Of an arena of the same device. ``copy_early``: have ``copied`` what is first read, if there is
        room."""


class RamStore:
    """See ``Store``. The arena is RAM: weights are read into it, and nothing is ever copied."""

    in_ram = True
    copied = 0

    def __init__(self, arena: Arena, *, copy_early: bool = False) -> None:
        self._arena = arena
        self._reader = Reader(arena.tensor)

    @property
    def done(self) -> int:
        return self._reader.done

    def restart(self) -> None:
        self._reader.done = 0

    @contextmanager
    def filled(self, source: Source) -> Iterator[None]:
        with self._arena.commit(0, source.span):
            self._reader.read(source.shards, source.slices, source.dtype)
            yield

    def keep(self, source: Source) -> None:
        """They are there."""

    def forget(self) -> None:
        """There is nothing beside the arena."""
