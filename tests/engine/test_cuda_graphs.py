"""How torch is asked to record graphs, by a stand-in with the rules of its pools and streams."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from engine.cuda_graphs import CudaGraphs

CARD = torch.device("cpu", 0)


class Pools:
    """A pool belongs to the graphs that were recorded into it; once there are none it takes no other."""

    def __init__(self) -> None:
        self.stream = "default"
        self.recording: Any = None
        self.breaks = False
        self.users: weakref.WeakSet[Any] | None = None

    @contextmanager
    def graph(self, graph: Any, *, pool: Any, stream: Any, capture_error_mode: str) -> Iterator[None]:
        if self.recording is not None:
            raise RuntimeError("already recording to mempool_id")
        if self.users is not None and not self.users:
            raise RuntimeError("use_count > 0 INTERNAL ASSERT FAILED")
        self.users = weakref.WeakSet() if self.users is None else self.users
        self.users.add(graph)
        self.recording, self.stream = pool, stream
        yield
        if self.breaks:  # torch neither leaves its stream nor the pool
            raise RuntimeError("operation failed due to a previous error during capture")
        self.recording, self.stream = None, "default"

    @contextmanager
    def use(self, stream: Any) -> Iterator[None]:
        before, self.stream = self.stream, stream
        try:
            yield
        finally:
            self.stream = before

    def end(self, device: int, pool: Any) -> None:
        if self.recording is None:
            raise RuntimeError("not currently recording to mempool_id")
        self.recording = None


class FakeGraph:
    pass


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> Pools:
    made = Pools()
    monkeypatch.setattr("torch.cuda.CUDAGraph", FakeGraph)
    monkeypatch.setattr("torch.cuda.graph_pool_handle", lambda: (0, 7))
    monkeypatch.setattr("torch.cuda.Stream", lambda device: "side")
    monkeypatch.setattr("torch.cuda.current_stream", lambda device: made.stream)
    monkeypatch.setattr("torch.cuda.stream", made.use)
    monkeypatch.setattr("torch.cuda.graph", made.graph)
    monkeypatch.setattr("torch._C._cuda_endAllocateToPool", made.end, raising=False)
    return made


def test_graphs_are_recorded_after_all_others_have_gone(pools: Pools) -> None:
    graphs = CudaGraphs(CARD)
    for _ in range(2):
        seen: list[Any] = []
        made = graphs.record(lambda seen=seen: seen.append(pools.stream))  # type: ignore[misc]
        assert seen == ["side"]
        del made
    assert pools.stream == "default"


def test_a_graph_that_broke_leaves_all_as_it_was(pools: Pools) -> None:
    graphs = CudaGraphs(CARD)
    graphs.record(lambda: None)
    pools.breaks = True
    with pytest.raises(RuntimeError, match="during capture"):
        graphs.record(lambda: None)
    assert pools.stream == "default"
    pools.breaks = False
    graphs.record(lambda: None)


def test_what_fails_while_a_graph_is_recorded_is_told(pools: Pools) -> None:
    graphs = CudaGraphs(CARD)

    def run() -> None:
        raise ValueError("no such thing")

    with pytest.raises(ValueError, match="no such thing"):
        graphs.record(run)
    assert pools.stream == "default"
    graphs.record(lambda: None)


def test_what_graphs_hold_is_their_pool_and_their_results(
    pools: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    segments = [
        {"segment_pool_id": (0, 0), "total_size": 1000},
        {"segment_pool_id": (0, 7), "total_size": 20},
        {"segment_pool_id": (0, 7), "total_size": 3},
    ]
    monkeypatch.setattr("torch.cuda.memory_snapshot", lambda: segments)
    graphs = CudaGraphs(torch.device("cpu"))
    assert graphs.held() == 0
    graphs.record(lambda: None)
    graphs.floats(10)
    assert graphs.held() == 23 + 40
