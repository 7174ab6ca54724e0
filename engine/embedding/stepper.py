"""The steps of one embedding model, as the device's worker runs them.

Inputs of one or several requests share a step. Only the oldest input is ever in the making, so that one
input's memory is all that is held between steps. A failing input ends its own request and no other.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence

import torch

from engine.device import StepClock
from engine.embedding.body import STEP_TOKENS
from engine.embedding.model import EmbeddingModel
from engine.embedding.request import EmbedRequest, Input
from engine.types import EngineError, OutOfMemory

log = logging.getLogger("dormouse.engine")


class EmbeddingStepper:
    """See ``engine.device.Stepper``. ``submit`` is for the loop, all else for the worker."""

    def __init__(self, model: EmbeddingModel) -> None:
        self.clock = StepClock()
        self.failure: Exception | None = None
        """Why it steps no more."""
        self.suspended = False
        """Never: what is under way is finished instead."""
        self.inbox: deque[EmbedRequest] = deque()
        self._body = model.body
        self._pooling = model.pooling
        self._queue: deque[Input] = deque()

    def submit(self, request: EmbedRequest) -> None:
        self.inbox.append(request)

    @property
    def has_work(self) -> bool:
        return bool(self.inbox or self._queue)

    def step(self) -> None:
        with self.clock:
            self._collect()
            if chosen := self._choose():
                self._advance(chosen)
            if not self._queue:
                self._body.rest()

    def fail(self, error: Exception) -> None:
        log.exception("the engine broke down", exc_info=error)
        self.failure = error
        self.end_all("the engine broke down")

    def suspend(self, *, keep_kv: bool) -> bool:
        """Whether nothing is under way any more."""
        return not self.has_work

    def resume(self) -> None:
        """Nothing was held up."""

    def end_all(self, reason: str) -> None:
        """Whatever runs or waits ends with an error."""
        self._collect()
        for work in self._queue:
            work.request.fail(EngineError(reason))
        self._collect()

    def _collect(self) -> None:
        """Let newcomers join and those who left go."""
        while self.inbox:
            self._queue.extend(self.inbox.popleft().inputs)
        for work in [work for work in self._queue if work.request.aborted]:
            self._finish(work)

    def _choose(self) -> list[tuple[Input, int]]:
        """The oldest inputs, and how many of their tokens the step computes."""
        chosen: list[tuple[Input, int]] = []
        room = STEP_TOKENS
        for work in self._queue:
            count = self._body.next_count(work)
            if chosen and count > room:
                break
            try:
                self._body.reserve(work)
            except OutOfMemory as error:
                if not chosen and not self._body.memory_will_come:
                    work.request.fail(error)
                break
            chosen.append((work, count))
            room -= count
        return chosen

    def _advance(self, chosen: Sequence[tuple[Input, int]]) -> None:
        try:
            vectors = self._compute(chosen)
        except Exception as error:
            if len(chosen) > 1:
                for one in chosen:  # alone, so that only the culprit's request ends
                    self._advance([one])
                return
            log.exception("a step failed", exc_info=error)
            chosen[0][0].request.fail(EngineError(f"a step failed: {error}"))
            return
        for work, vector in vectors:
            work.request.take(work.index, vector)
            self._finish(work)

    @torch.inference_mode()
    def _compute(self, chosen: Sequence[tuple[Input, int]]) -> list[tuple[Input, torch.Tensor]]:
        """One step; the vectors of the inputs that it finished."""
        vectors = []
        for (work, count), hidden in zip(chosen, self._body.hidden(chosen), strict=True):
            if work.computed + count == len(work.ids):
                whole = torch.cat([*work.hidden, hidden])
                vectors.append((work, self._pooling.vector(whole, work.request.dimensions)))
            else:
                work.computed += count
                work.hidden.append(self._pooling.to_keep(hidden))
        return vectors

    def _finish(self, work: Input) -> None:
        self._body.release(work)
        self._queue.remove(work)
