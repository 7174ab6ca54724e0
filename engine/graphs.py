"""A model's steps of answers as graphs: hundreds of launches that are made as one.

A graph holds addresses, and all that a step reads and writes keeps its own through any number of sleeps. So
one is recorded for each number of rows that is rounded to, when that is first needed, and replayed for ever.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from engine.batch import Batch
from engine.decode_inputs import DecodeInputs
from engine.models.decoder import Decoder, KVLayers

log = logging.getLogger("dormouse.engine")


class Graph(Protocol):
    def replay(self) -> None:
        """Queue all that was recorded."""


class GraphRecorder(Protocol):
    """That of one device. Its graphs share memory: none may be replayed while another one's results are
    needed."""

    def record(self, run: Callable[[], None]) -> Graph:
        """What ``run`` queues on the device. It waits for nothing and frees no memory of others. Raises
        RuntimeError."""

    def floats(self, count: int) -> torch.Tensor:
        """float32 [count] for results: the same memory for all graphs."""

    def held(self) -> int:
        """Bytes of the device that are not free, whoever has them."""


def rounded_rows(most: int) -> list[int]:
    """For so many rows there are graphs: powers of two, then multiples of eight, up to ``most``."""
    return sorted({min(rows, most) for rows in (1, 2, 4, *range(8, most + 8, 8))})


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

    def logits(self, batch: Batch) -> torch.Tensor | None:
        """float32 [rows, vocabulary], good until the next step of any model on the device; None where there
        is no room for a graph."""
        rows = next(size for size in self._sizes if size >= len(batch.spans))
        step = self._steps.get(rows) or self._record(rows)
        if step is None:
            return None
        self._inputs.fill(batch, rows)
        step.graph.replay()
        return step.logits[: len(batch.spans)]

    def _record(self, rows: int) -> _Step | None:
        vocabulary = self._decoder.vocabulary
        # As large at once as it will ever be, since graphs keep what they were recorded with.
        logits = self._recorder.floats(self._sizes[-1] * vocabulary).view(-1, vocabulary)[:rows]
        tokens, plan = self._inputs.tokens(rows), self._inputs.plan(rows)

        def run() -> None:
            hidden = self._decoder.hidden(self._decoder.begin(*tokens, plan, self._kv))
            logits.copy_(self._decoder.logits(hidden))

        self._inputs.clear()
        before = self._recorder.held()
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
