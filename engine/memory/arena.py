"""The contract of an arena: an address range that is reserved once and keeps its address for life.

Physical memory is committed behind parts of the range and released from them; tensors over the range stay
valid throughout. Touching a part that is not committed is a bug that the lifecycle makes impossible.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import torch


class Arena(Protocol):
    @property
    def size(self) -> int:
        """Bytes reserved, a multiple of ``granularity``."""

    @property
    def granularity(self) -> int:
        """Offsets and lengths of commits and releases are multiples of this."""

    @property
    def committed(self) -> int:
        """Bytes that have memory behind them."""

    @property
    def tensor(self) -> torch.Tensor:
        """The whole range as uint8 [size]."""

    def commit(self, offset: int, length: int) -> AbstractContextManager[None]:
        """Back a range with memory; the body fills it. If the body raises, the memory goes back.
        Raises OutOfMemory, having taken nothing."""

    def commit_all(self, ranges: Sequence[tuple[int, int]]) -> AbstractContextManager[None]:
        """The same for several ranges, each (offset, length), at once."""

    def populate(self, offset: int, length: int) -> None:
        """Take the memory behind a committed range now, not when it is first written to.
        Raises OutOfMemory."""

    def release(self, offset: int, length: int) -> None:
        """Give the memory behind a range back to the system; its contents are gone."""

    def close(self) -> None:
        """Give the range itself back. No tensor over it may be touched again."""


class ArenaFactory(Protocol):
    def __call__(self, size: int, granularity: int | None = None, /) -> Arena:
        """An arena of at least ``size`` bytes on one device; ``granularity``: as small as this, where the
        device has such pages, None: what is best for large pieces."""
