"""What a CUDA graph does, without CUDA: every operation and every launch made while it records is made again
at a replay, on the very tensors of then. So whatever is told to it by other ways than memory is as it was,
and whatever waits for the device is refused."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves
from triton.runtime.interpreter import GridExecutor

from engine.graphs import Graph

_WAITING = {"_local_scalar_dense", "nonzero", "item", "is_nonzero", "equal", "bincount"}


class Tape(TorchDispatchMode):
    """See ``engine.graphs.Graph``."""

    def __init__(self) -> None:
        super().__init__()
        self._steps: list[Callable[[], None]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        if name in _WAITING:
            raise RuntimeError(f"{name} waits for the device while a graph is recorded")
        made = func(*args, **kwargs)
        given = {one.untyped_storage().data_ptr() for one in _tensors((args, kwargs))}
        fresh = [one for one in _tensors(made) if one.untyped_storage().data_ptr() not in given]
        if fresh or func._schema.is_mutable:
            self._steps.append(lambda: _again(func, args, kwargs, made, fresh))
        return made

    @contextmanager
    def launches(self) -> Any:
        """Those of kernels are recorded too."""
        real = GridExecutor.__call__

        def launch(executor: GridExecutor, *args: Any, **kwargs: Any) -> None:
            with _disable_current_modes():
                real(executor, *args, **kwargs)
            self._steps.append(lambda: real(executor, *args, **kwargs))

        with patch.object(GridExecutor, "__call__", launch):
            yield

    def replay(self) -> None:
        for step in self._steps:
            step()


def _again(func: Any, args: Any, kwargs: Any, made: Any, fresh: list[torch.Tensor]) -> None:
    """The operation, with what it made then as where its results go."""
    for old, new in zip(_tensors(made), _tensors(func(*args, **kwargs)), strict=True):
        if any(old is one for one in fresh):
            old.copy_(new)


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


class Tapes:
    """See ``engine.graphs.GraphRecorder``."""

    def __init__(self) -> None:
        self.recorded = 0
        self.replayed = 0
        self.failing = False
        self._floats = torch.empty(0)

    def record(self, run: Callable[[], object]) -> Graph:
        if self.failing:
            raise RuntimeError("CUDA out of memory")
        tape = Tape()
        with tape, tape.launches():
            run()
        self._floats.fill_(torch.nan)  # nothing is computed before the first replay
        self.recorded += 1
        return _Counted(self, tape)

    def floats(self, count: int) -> torch.Tensor:
        if len(self._floats) < count:
            self._floats = torch.empty(count)
        return self._floats[:count]

    def held(self) -> int:
        return self.recorded * 1000

    def mark(self) -> Callable[[], None]:
        return lambda: None


class _Counted:
    def __init__(self, tapes: Tapes, tape: Tape) -> None:
        self._tapes = tapes
        self._tape = tape

    def replay(self) -> None:
        self._tapes.replayed += 1
        self._tape.replay()
