"""CUDA graphs, by torch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch

from engine.graphs import Graph


class CudaGraphs:
    """See ``engine.graphs.GraphRecorder``. One pool of memory for the graphs of all models."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None
        self._stream: Any = None
        """One for all: torch keeps tens of megabytes for the products of each stream that it has seen."""
        self._kept: list[Any] = []
        """Graphs that nobody replays, but torch asks for."""
        self._floats = torch.empty(0, device="cpu")

    def record(self, run: Callable[[], object]) -> Graph:
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
            self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
            # Once the last graph of a pool is gone torch takes no other into it; so one of them stays.
            self._kept.append(self._record(torch.zeros(1, device=self._device).zero_))
        return self._record(run)

    def _record(self, run: Callable[[], object]) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        # Other threads map memory and queue copies meanwhile, which are none of this graph's business.
        recording = torch.cuda.graph(
            graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
        )
        try:
            # Where recording fails torch does not come back from its stream by itself, nor from the pool.
            with torch.cuda.stream(torch.cuda.current_stream(self._device)), recording:
                run()
        except BaseException:
            self._kept.append(graph)
            with suppress(RuntimeError):
                torch._C._cuda_endAllocateToPool(self._device.index, self._pool)
            raise
        return graph

    def floats(self, count: int) -> torch.Tensor:
        if len(self._floats) < count:
            # Graphs that were recorded before keep theirs.
            self._floats = torch.empty(count, device=self._device)
        return self._floats[:count]

    def held(self) -> int:
        segments = torch.cuda.memory_snapshot()  # type: ignore[no-untyped-call]
        pooled = sum(one["total_size"] for one in segments if one["segment_pool_id"] == self._pool)
        return int(pooled) + self._floats.nbytes * (self._floats.device == self._device)

    def mark(self) -> Callable[[], None]:
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event.synchronize
