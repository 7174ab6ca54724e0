"""A model's steps of answers as graphs: hundreds of launches that are made as one.

A graph holds addresses, and all that a step reads and writes keeps its own through any number of sleeps. So
one is recorded for each number of rows that is rounded to, when that is first needed, and replayed for ever.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from engine.batch import Batch
from engine.decode_inputs import DecodeInputs, Settings
from engine.models.decoder import Decoder, KVLayers

log = logging.getLogger("dormouse.engine")


class Graph(Protocol):
    def replay(self) -> None:
        """Queue all that was recorded."""


class GraphRecorder(Protocol):
    """That of one device. Its graphs share memory: none may be replayed while another one's results are
    needed."""

    def record(self, run: Callable[[], object]) -> Graph:
        """What ``run`` queues on the device. It waits for nothing and frees no memory of others. Raises
        RuntimeError."""

    def floats(self, count: int) -> torch.Tensor:
        """float32 [count] for results: the same memory for all graphs."""

    def held(self) -> int:
        """Bytes of the device that all graphs have for themselves, but for what the driver keeps of each."""

    def mark(self) -> Callable[[], None]:
        """A function that waits until all is done that is queued by now."""


def rounded_rows(most: int) -> list[int]:
    """For so many rows there are graphs: powers of two, then multiples of eight, up to ``most``."""
    return sorted({min(rows, most) for rows in (1, 2, 4, *range(8, most + 8, 8))})


@dataclass(frozen=True, slots=True)
class Replayed:
    """A step that is queued."""

    logits: torch.Tensor
    """float32 [rows, vocabulary], good until the next step of any model on the device."""
    chosen: Callable[[], list[int]]
    """Waits for what its settings choose from them, a token a row; good until two more are queued."""


@dataclass(frozen=True, slots=True)
class _Step:
    graph: Graph
    logits: torch.Tensor


class DecodeGraphs:
    """Those of one model, for up to ``rows`` sequences of up to ``blocks`` blocks."""

    def __init__(
        self,
        decoder: Decoder,
        kv: KVLayers,
        shape: tuple[int, int],
        device: torch.device,
        recorder: GraphRecorder,
    ) -> None:
        """``shape``: sequences, and blocks of each, at most."""
        self._decoder = decoder
        self._kv = kv
        self._recorder = recorder
        self._inputs = DecodeInputs(*shape, device)
        self._sizes = rounded_rows(shape[0])
        self._steps: dict[int, _Step] = {}
        self._failed = False
        self.nbytes = self._inputs.nbytes
        """Of the device, which stay while the model sleeps."""

    def takes(self, batch: Batch) -> bool:
        """Whether a batch is one that there is a graph for, or can be: a token of each sequence."""
        return not self._failed and len(batch.token_ids) == len(batch.spans) <= self._sizes[-1]

    def replay(self, batch: Batch, settings: Settings, after: Sequence[int] | None = None) -> Replayed | None:
        """None where there is no room for a graph. ``after``: as ``DecodeInputs.fill`` has it; None where
        there is no graph yet, for to record one is to lose what the step before chooses."""
        count = len(batch.spans)
        rows = next(size for size in self._sizes if size >= count)
        step = self._steps.get(rows)
        if step is None and after is None:
            step = self._record(rows)
        if step is None:
            return None
        self._inputs.fill(batch, rows, settings, after)
        step.graph.replay()
        return Replayed(step.logits[:count], self._inputs.chosen(count, self._recorder.mark))

    def _record(self, rows: int) -> _Step | None:
        from engine.kernels.choose import choose

        vocabulary = self._decoder.vocabulary
        before = self._recorder.held()
        # As large at once as it will ever be, since graphs keep what they were recorded with.
        logits = self._recorder.floats(self._sizes[-1] * vocabulary).view(-1, vocabulary)[:rows]
        inputs = self._inputs
        places, plan, choice = inputs.places(rows), inputs.plan(rows), inputs.choice(rows)

        def run() -> None:
            begun = self._decoder.begin(inputs.token_ids(rows), *places, plan, self._kv)
            logits.copy_(self._decoder.logits(self._decoder.hidden(begun)))
            choose(logits, *choice)

        inputs.clear()
        try:
            run()  # what is made once, kernels among it, cannot be made while a graph is recorded
            step = _Step(self._recorder.record(run), logits)
        except RuntimeError as error:
            log.warning("steps of %d rows stay without a graph: %s", rows, error)
            self._failed = True
            return None
        self._steps[rows] = step
        self.nbytes += max(0, self._recorder.held() - before)
        return step
