"""The steps of one generating model, as the device's worker runs them.

Newcomers join and those who left go between two steps; a failing step ends its own sequences and no others.
"""

from __future__ import annotations

import logging
import time
from collections import deque

from engine.chunk import StepBudget
from engine.device import StepClock
from engine.model import Model
from engine.scheduler import Scheduled
from engine.sequence import Sequence
from engine.stream import DeltaStream
from engine.types import Delta, EngineError, OutOfMemory

log = logging.getLogger("dormouse.engine")

Results = list[tuple[Sequence, Delta | BaseException]]


class GenerationStepper:
    """See ``engine.device.Stepper``. ``submit`` is for the loop, all else for the worker."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.clock = StepClock()
        self.failure: Exception | None = None
        """Why it steps no more."""
        self.inbox: deque[Sequence] = deque()

    def submit(self, sequence: Sequence) -> None:
        self.inbox.append(sequence)

    @property
    def has_work(self) -> bool:
        return bool(self.inbox) or self.model.scheduler.has_work

    def step(self) -> None:
        scheduler = self.model.scheduler
        with self.clock:
            self._collect()
            if scheduler.has_work:
                _deliver(self._advance())
            if not scheduler.has_work:
                self.model.kv.settle()
        if any(sequence.left == 1 for sequence in scheduler.running):
            # A busy model is packed too, a matrix a step, unless that would hold up the next token by much.
            self.model.weights.pack_next(most=self.model.weights.nbytes // 20)

    def fail(self, error: Exception) -> None:
        log.exception("the engine broke down", exc_info=error)
        self.failure = error
        left = [*self.inbox, *self.model.scheduler.sequences]
        _deliver([(sequence, EngineError("the engine broke down")) for sequence in left])

    def end_all(self, reason: str) -> None:
        """Whatever runs or waits ends with an error."""
        self._collect()
        _deliver(self._fail(self.model.scheduler.sequences, EngineError(reason)))

    def _collect(self) -> None:
        """Let newcomers join and those who left go."""
        scheduler = self.model.scheduler
        while self.inbox:
            scheduler.add(self.inbox.popleft())
        for sequence in scheduler.sequences:
            if sequence.stream.aborted:
                scheduler.finish(sequence)

    def _advance(self) -> Results:
        scheduler = self.model.scheduler
        scheduled: Scheduled = []
        try:
            scheduled = scheduler.schedule()
            began = time.perf_counter()
            tokens = self.model.runner.step(scheduled)
            _observe(scheduler.budget, scheduled, time.perf_counter() - began)
            scheduler.computed(scheduled)
        except Exception as error:
            if isinstance(error, OutOfMemory) and self.model.kv.waits_for_siblings:
                return []  # others run, and give memory back when they have done
            affected = [sequence for sequence, _ in scheduled] or [*scheduler.waiting, *scheduler.running][:1]
            return self._fail(affected, error)
        results: Results = []
        for (sequence, _), token in zip(scheduled, tokens, strict=True):
            if token is None:
                continue
            try:
                results.append((sequence, sequence.append(*token)))
            except Exception as error:
                results += self._fail([sequence], error)
            if sequence.finish_reason:
                scheduler.finish(sequence)
        return results

    def _fail(self, sequences: list[Sequence], error: Exception) -> Results:
        """End these sequences with an error; the others and the model go on."""
        if not isinstance(error, EngineError):
            log.exception("a step failed", exc_info=error)
            error = EngineError(f"a step failed: {error}")
        for sequence in sequences:
            sequence.stream.aborted = True  # its other choices end with it
            self.model.scheduler.finish(sequence)
        return [(sequence, error) for sequence in sequences]


def _deliver(results: Results) -> None:
    DeltaStream.deliver([(sequence.stream, item) for sequence, item in results])


def _observe(budget: StepBudget, scheduled: Scheduled, seconds: float) -> None:
    decoding = sum(count == 1 for _, count in scheduled)
    prefill = sum(count for _, count in scheduled if count > 1)
    budget.observe(decoding, prefill, seconds)
