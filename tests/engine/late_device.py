"""A device that does what is queued as late as it may: when somebody waits for it, or asks for anything else.

Its graphs are the steps' own functions, called again; rows attend by the CPU's attention, read from tables.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engine import runner, sampler
from engine.attention.cpu import KVLayer, attend
from engine.attention.interface import CpuAttention
from engine.attention.plan import AttentionPlan, AttentionSpec, make_plan
from engine.attention.table_plan import TablePlan
from engine.blocks import blocks_for
from engine.graphs import Graph
from engine.models.operations import TorchOperations
from engine.penalties import History
from engine.sampler import SampleRow
from engine.types import SamplingParams


class LateGraphs:
    """See ``engine.graphs.GraphRecorder``."""

    def __init__(self) -> None:
        self.replayed = 0
        self._queue: deque[Callable[[], object]] = deque()
        self._queued = 0
        self._floats = torch.empty(0)

    def queue(self, work: Callable[[], object]) -> None:
        self._queue.append(work)
        self._queued += 1

    def finish(self, until: int | None = None) -> None:
        """All that is queued, or what was when there had been ``until`` of it."""
        while self._queue and (until is None or self._queued - len(self._queue) < until):
            self._queue.popleft()()

    def record(self, run: Callable[[], None]) -> Graph:
        self.finish()
        return _Again(self, run)

    def floats(self, count: int) -> torch.Tensor:
        self.finish()
        if len(self._floats) < count:
            self._floats = torch.empty(count)
        return self._floats[:count]

    def held(self) -> int:
        return 0

    def mark(self) -> Callable[[], None]:
        queued = self._queued
        return lambda: self.finish(queued)


class _Again:
    def __init__(self, graphs: LateGraphs, run: Callable[[], None]) -> None:
        self._graphs = graphs
        self._run = run

    def replay(self) -> None:
        self._graphs.replayed += 1
        self._graphs.queue(torch.inference_mode()(self._run))


def _own(plan: TablePlan) -> tuple[torch.Tensor, AttentionPlan | None]:
    """The rows that are any, and the CPU's plan for them, if there are some."""
    rows = (plan.extents > 0).nonzero().flatten()
    spans = [
        (extent - 1, 1, table[: blocks_for(extent)])
        for extent, table in zip(plan.extents[rows].tolist(), plan.tables[rows].tolist(), strict=True)
    ]
    return rows, make_plan(spans, rows.device, generated=True) if spans else None


def _spread(found: torch.Tensor, rows: torch.Tensor, count: int) -> torch.Tensor:
    out = torch.zeros(count, *found.shape[1:], dtype=found.dtype)
    out[rows] = found
    return out


class TableAttention(CpuAttention):
    def attend(  # type: ignore[override]
        self, plan: Any, layer: KVLayer, queries: torch.Tensor, spec: AttentionSpec
    ) -> torch.Tensor:
        if isinstance(plan, AttentionPlan):
            return attend(plan, layer, queries, spec)
        rows, own = _own(plan)
        if own is None:
            return torch.zeros_like(queries)
        return _spread(attend(own, layer, queries[rows], spec), rows, len(queries))


class TableOperations(TorchOperations):
    def cache_heads(self, mixed: torch.Tensor, norms: Any, rotation: Any, plan: Any, layer: Any) -> Any:
        if isinstance(plan, AttentionPlan):
            return super().cache_heads(mixed, norms, rotation, plan, layer)
        rows, own = _own(plan)
        if own is None:
            return torch.zeros_like(mixed[:, : self._config.num_heads])
        turned = rotation and (rotation[0][rows], rotation[1][rows])
        return _spread(super().cache_heads(mixed[rows], norms, turned, own, layer), rows, len(mixed))


def choose(logits: torch.Tensor, settings: torch.Tensor, out: torch.Tensor) -> None:
    """See ``engine.kernels.choose.choose``; by the CPU's sampler."""
    for row, (temperature, top_k, top_p, min_p, drawn) in enumerate(settings.tolist()):
        params = SamplingParams(
            max_tokens=1, temperature=temperature, top_k=int(top_k), top_p=top_p, min_p=min_p
        )
        asked = SampleRow(params, drawn, 0, History(params, ()))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sampler, "uniform", lambda seed, position: seed)
            out[row] = sampler._choose(logits[row : row + 1], [asked])[0]


def install(monkeypatch: pytest.MonkeyPatch, graphs: LateGraphs) -> None:
    """Decoders that are made from now on compute on such a device."""
    # Not the module itself: kernels are defined for an interpreter or for a card when it is first imported.
    monkeypatch.setitem(sys.modules, "engine.kernels.choose", SimpleNamespace(choose=choose))
    monkeypatch.setattr("engine.models.decoder.attention_for", TableAttention)
    monkeypatch.setattr("engine.models.decoder.operations_for", lambda config, _: TableOperations(config))
    monkeypatch.setattr("engine.devices.finish_steps", lambda device: graphs.finish())
    copy = torch.Tensor.copy_

    def copy_(self: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
        if non_blocking:
            graphs.queue(lambda: copy(self, source))
            return self
        return copy(self, source)

    monkeypatch.setattr(torch.Tensor, "copy_", copy_)
    for owner, name in ((runner, "sample"), (runner.Runner, "begin_prefill"), (runner.Runner, "_end")):
        monkeypatch.setattr(owner, name, _in_turn(getattr(owner, name), graphs))


def _in_turn(call: Callable[..., Any], graphs: LateGraphs) -> Callable[..., Any]:
    """A stream does one thing after the other."""

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        graphs.finish()
        return call(*args, **kwargs)

    return wrapped
