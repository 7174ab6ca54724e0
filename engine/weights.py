"""The weights in their arena: the layout, the views, and when memory is behind them.

The layout follows the files. A fused parameter is its checkpoint tensors stacked by rows, so every
checkpoint tensor is one contiguous slice of the arena and filling it is a few large parallel reads
(``engine.reader``), with no work per tensor.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Sequence

import torch

from engine.checkpoint import Shard, StoredTensor
from engine.linear import Linear
from engine.memory.arena import Arena
from engine.memory.sizes import round_up
from engine.parameter import Parameter, lay_out
from engine.reader import DTYPES, Slice
from engine.store import RamStore, Source, Store
from engine.types import CheckpointError


class Layout:
    """Where every parameter lies in the arena, and from which bytes of which file it comes."""

    def __init__(self, parameters: Sequence[Parameter], shards: Sequence[Shard], dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.shards = shards
        self.offsets: dict[str, tuple[int, tuple[int, ...]]] = {}
        self.slices: list[Slice] = []
        stored = {name: (index, t) for index, shard in enumerate(shards) for name, t in shard.tensors.items()}
        starts, self.nbytes = lay_out(parameters, dtype.itemsize)
        for parameter, start in zip(parameters, starts, strict=True):
            self.offsets[parameter.name] = (start, parameter.shape)
            target = start
            for name, shape in parameter.sources:
                shard, tensor = _find(stored, name, shape)
                self.slices.append(Slice(tensor, shard, target))
                target += math.prod(shape) * dtype.itemsize

    def views(self, arena: torch.Tensor) -> dict[str, torch.Tensor]:
        """The parameters as views of the arena's uint8 tensor."""
        return {
            name: arena[start : start + math.prod(shape) * self.dtype.itemsize].view(self.dtype).view(shape)
            for name, (start, shape) in self.offsets.items()
        }

    def same_tensors(self, other: Layout) -> bool:
        """Whether names, shapes and dtypes are the same, so that one's bytes fit the other's places."""

        def key(layout: Layout) -> list[tuple[str, str, tuple[int, ...], int]]:
            return [(s.source.name, s.source.dtype, s.source.shape, s.target) for s in layout.slices]

        return key(self) == key(other)


def _find(
    stored: dict[str, tuple[int, StoredTensor]], name: str, shape: tuple[int, ...]
) -> tuple[int, StoredTensor]:
    if name not in stored:
        raise CheckpointError(f"no tensor {name} in the checkpoint", reason=f"the checkpoint lacks {name}")
    shard, tensor = stored[name]
    if tensor.shape != shape:
        message = f"{name} has shape {list(tensor.shape)} where config.json means {list(shape)}"
        raise CheckpointError(message, reason=message)
    if tensor.dtype not in DTYPES:
        message = f"{name} is stored as {tensor.dtype} (served: {', '.join(DTYPES)})"
        raise CheckpointError(message, reason=message)
    return shard, tensor


class Weights:
    """The weights of one model: committed and filled, or released, at fixed addresses."""

    def __init__(
        self, layout: Layout, arena: Arena, linears: Sequence[Linear] = (), store: Store | None = None
    ) -> None:
        """``linears`` are over the arena, and may be packed. ``store``: None where the arena is RAM."""
        self._layout = layout
        self._arena = arena
        self._linears = linears
        self._plain: deque[Linear] = deque()
        """Those that may yet be packed."""
        self._lock = threading.Lock()
        """Held while the bytes change."""
        self._span = round_up(layout.nbytes, arena.granularity)
        self._store = store or RamStore(arena)
        self._filling = False
        self.resident = False

    def views(self) -> dict[str, torch.Tensor]:
        """The parameters; their memory is there while ``resident``."""
        return self._layout.views(self._arena.tensor)

    @property
    def done(self) -> int:
        """Bytes read so far by the fill under way, or by the last one."""
        return self._store.done

    @property
    def nbytes(self) -> int:
        """Bytes committed while resident."""
        return self._span

    @property
    def held(self) -> int:
        """Bytes that it has memory for now: while it is filled, what has been read so far."""
        filled = min(self.done, self._span) if self._filling else 0
        return self._span if self.resident else filled

    @property
    def in_ram(self) -> bool:
        """Whether they stay where they are in a light sleep."""
        return self._store.in_ram

    def parked(self, *, asleep: bool) -> int:
        """Bytes of RAM that keep them for the next wake."""
        return self.held if self.in_ram and self.resident and asleep else self._store.copied

    def fill(self) -> None:
        """Commit the range and bring the bytes into it. Blocking; runs beside the device's worker.
        Raises OutOfMemory, CheckpointError; then nothing is held."""
        with self._lock:
            self._store.restart()
            self._filling = True
            try:
                with self._store.filled(self._source):
                    self._plain = deque(self._linears)
                    self.resident = True
            finally:
                self._filling = False

    def keep(self) -> None:
        """See to it that a light sleep keeps them. Blocking; runs beside the device's worker. Raises
        OutOfMemory: it would be a deep one."""
        with self._lock:
            if self.resident:
                self._store.keep(self._source)

    @property
    def _source(self) -> Source:
        return Source(self._layout.shards, self._layout.slices, self._layout.dtype, self._span)

    @property
    def packed(self) -> int:
        """Bytes of the weights that are laid out for the device's matmul, in their own place."""
        return sum(layer.weight.nbytes for layer in self._linears if layer.packed)

    def pack_next(self, most: int | None = None) -> bool:
        """Lay out one more matrix, of at most so many bytes, for the device's matmul; False when there is
        none, or this is not the time. For the device's worker: a second thread that computes would have
        OpenMP threads of its own, and all would wait for each other more slowly."""
        if not self._plain or not self._lock.acquire(blocking=False):
            return False
        try:
            while self._plain and not self._plain[0].packable:
                self._plain.popleft()
            fits = (one for one in self._plain if most is None or one.weight.nbytes <= most)
            layer = next((one for one in fits if one.packable), None)
            if layer is None or not layer.pack():
                return False
            self._plain.remove(layer)
            return True
        finally:
            self._lock.release()

    def forget(self) -> None:
        """Give back what keeps them for the next wake beside the arena. Blocking; runs beside the device's
        worker."""
        with self._lock:
            self._store.forget()

    def trim_copy(self) -> int:
        """Give it back if they are where they serve; bytes freed."""
        with self._lock:
            freed = self._store.copied if self.resident else 0
            if freed:
                self._store.forget()
            return freed

    def release(self) -> None:
        """Give back what is behind the arena."""
        with self._lock:
            if self.resident:
                self.resident = False
                self._plain.clear()
                self._arena.release(0, self._span)
                for layer in self._linears:
                    layer.emptied()

    def adopt(self, layout: Layout) -> None:
        """Take ``layout``'s files as the source from now on; if resident, read them in.
        A failure half-way leaves the weights released, never mixed."""
        if not self._layout.same_tensors(layout):
            message = "the files hold other names, shapes or dtypes than before"
            raise CheckpointError(message, reason=message)
        self.forget()  # the bytes of the old files
        if self.resident:
            self.release()
            old, self._layout = self._layout, layout
            try:
                self.fill()
            except BaseException:
                self._layout = old
                raise
        self._layout = layout
