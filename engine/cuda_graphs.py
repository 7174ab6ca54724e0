"""CUDA graphs, by torch."""

from __future__ import annotations

from collections.abc import Callable
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
        self._floats = torch.empty(0, device="cpu")

    def record(self, run: Callable[[], None]) -> Graph:
        graph = torch.cuda.CUDAGraph()
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
            self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        # Other threads map memory and queue copies meanwhile, which are none of this graph's business.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            run()
        return graph

    def floats(self, count: int) -> torch.Tensor:
        if len(self._floats) < count:
            # Graphs that were recorded before keep theirs.
            self._floats = torch.empty(count, device=self._device)
        return self._floats[:count]

    def held(self) -> int:
        free, total = torch.cuda.mem_get_info(self._device)
        return total - free

    def mark(self) -> Callable[[], None]:
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event.synchronize
