"""The steps of one embedding model, as the device's worker runs them.

Inputs of one or several requests share a step. Only the oldest input is ever in the making, so that one
input's memory is all that is held between steps. A failing input ends its own request and no other.
While it is suspended there are no steps, and nobody goes but who leaves.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import torch

from engine.blocks import blocks_for
from engine.device import StepClock, step_failed
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
        self.inbox: deque[EmbedRequest] = deque()
        self._kv = model.kv
        self._body = model.body
        self._pooling = model.pooling
        self._queue: list[EmbedRequest] = []
        """First come, first served."""
        self._went_on: Callable[[], None] | None = None
        """To be called when more is computed than before the suspension, or nothing is left to compute."""

    def submit(self, request: EmbedRequest) -> None:
        self.inbox.append(request)

    @property
    def has_work(self) -> bool:
        if self.suspended:
            return any(request.aborted for request in self._queue)
        return bool(self.inbox or self._queue)

    def step(self) -> None:
        if self.suspended:
            self._collect()
            self._kv.trim()
            return
        with self.clock:
            self._collect()
            if chosen := self._choose():
                self._advance(chosen)
            if not self._queue:
                self._tell_that_it_went_on()
                self._body.rest()

    def fail(self, error: Exception) -> None:
        log.exception("the engine broke down", exc_info=error)
        self.failure, self.suspended = error, False
        self.end_all("the engine broke down")

    def suspend(self, *, keep_kv: bool) -> None:
        """Step no more until ``resume``."""
        self._collect()
        if not keep_kv:
            self._give_up()
        # What was never begun may be too large for the device, and is nothing to make room for.
        begun = next((work for work in self._inputs() if work.reached), None)
        self._kv.park(blocks_for(len(begun.ids)) if begun else 1, self._give_up)
        if self.suspended:
            self._kv.trim()  # it may be asleep
        self.suspended = True

    def resume(self, went_on: Callable[[], None]) -> None:
        """The model is awake."""
        self.suspended, self._went_on = False, went_on
        self._kv.unpark()
        if not self.has_work:
            self._tell_that_it_went_on()

    def end_all(self, reason: str) -> None:
        """Whatever runs or waits ends with an error."""
        self._collect()
        for request in self._queue:
            request.fail(EngineError(reason))
        self._collect()
        self._tell_that_it_went_on()
        if self.suspended:
            self._kv.trim()

    def _tell_that_it_went_on(self) -> None:
        if self._went_on:
            call, self._went_on = self._went_on, None
            call()

    def _inputs(self) -> Iterator[Input]:
        """Those without a vector yet, the oldest first."""
        return (work for request in self._queue for work in request.left)

    def _give_up(self) -> bool:
        """The input in the making loses its KV, and is computed again; False when none has any."""
        oldest = next(self._inputs(), None)
        if oldest is None or not oldest.blocks:
            return False
        self._body.release(oldest)
        oldest.computed, oldest.hidden = 0, []
        return True

    def _collect(self) -> None:
        """Let newcomers join and those who left go."""
        while self.inbox:
            self._queue.append(self.inbox.popleft())
        for request in [request for request in self._queue if request.aborted]:
            for work in request.left:
                self._body.release(work)
            self._queue.remove(request)

    def _choose(self) -> list[tuple[Input, int]]:
        """The oldest inputs, and how many of their tokens the step computes."""
        chosen: list[tuple[Input, int]] = []
        room = STEP_TOKENS
        for work in self._inputs():
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
        further = any(work.computed + count > work.reached for work, count in chosen)
        try:
            vectors = self._compute(chosen)
        except Exception as error:
            if len(chosen) > 1:
                for one in chosen:  # alone, so that only the culprit's request ends
                    self._advance([one])
                return
            chosen[0][0].request.fail(step_failed(error))
            return
        for work, vector in vectors:
            self._finish(work, vector)
        if further:
            self._tell_that_it_went_on()

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
                work.reached = max(work.reached, work.computed)
                work.hidden.append(self._pooling.to_keep(hidden))
        return vectors

    def _finish(self, work: Input, vector: torch.Tensor) -> None:
        self._body.release(work)
        work.request.take(work, vector)
        if not work.request.left:
            self._queue.remove(work.request)
