"""The steps of one generating model, as the device's worker runs them.

Newcomers join and those who left go between two steps; a failing step ends its own sequences and no others.
While it is suspended there are no steps, and nobody goes but who leaves.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable

from engine.device import StepClock, step_failed
from engine.lookahead import Lookahead
from engine.model import Model
from engine.runner import Prefill
from engine.sampler import Sampled
from engine.scheduler import Scheduled
from engine.sequence import Sequence
from engine.stream import DeltaStream
from engine.types import Delta, EngineError, OutOfMemory

log = logging.getLogger("dormouse.engine")

Results = list[tuple[Sequence, Delta | BaseException]]


class GenerationStepper:
    """See ``engine.device.Stepper``. ``submit`` is for the loop, all else for the worker."""

    def __init__(self, model: Model, others_wait: Callable[[], bool] = lambda: False) -> None:
        """``others_wait``: whether the worker has something else to do."""
        self.model = model
        self.clock = StepClock()
        self.failure: Exception | None = None
        """Why it steps no more."""
        self.suspended = False
        self.inbox: deque[Sequence] = deque()
        self._others_wait = others_wait
        self._went_on: Callable[[], None] | None = None
        """To be called when there are tokens after a resumption, or nothing is left to make any."""
        self._prefill: Prefill | None = None
        """The pass of prompts in the making."""
        self._lookahead = Lookahead()

    def submit(self, sequence: Sequence) -> None:
        self.inbox.append(sequence)

    @property
    def has_work(self) -> bool:
        if self.suspended:
            return any(sequence.stream.aborted for sequence in self.model.scheduler.sequences)
        return bool(self.inbox) or self.model.scheduler.has_work

    def step(self) -> None:
        if self.suspended:
            self._collect()
            self.model.kv.trim()
            return
        scheduler = self.model.scheduler
        with self.clock:
            self._collect()
            began = time.perf_counter()
            decoding = self._decode()
            if scheduler.has_work:
                self._compute_prompts(decoding, began)
            if not scheduler.prefilling:
                self._prefill = None
            if not (decoding and scheduler.running):
                self._lookahead.drop()
            if not scheduler.has_work:
                self._tell_that_it_went_on()
                self.model.kv.settle()
        if decoding:
            # A busy model is packed too, a matrix a step, unless that would hold up the next token by much.
            self.model.weights.pack_next(most=self.model.weights.nbytes // 20)

    def fail(self, error: Exception) -> None:
        log.exception("the engine broke down", exc_info=error)
        self.failure, self.suspended = error, False
        self._tell_that_it_went_on()
        left = [*self.inbox, *self.model.scheduler.sequences]
        _deliver([(sequence, EngineError("the engine broke down")) for sequence in left])

    def suspend(self, *, keep_kv: bool) -> None:
        """Step no more until ``resume``."""
        self._collect()
        self.model.scheduler.suspend(keep_kv=keep_kv)
        self._prefill = None
        self._lookahead.drop()
        if self.suspended:
            self.model.kv.trim()  # it may be asleep
        self.suspended = True

    def resume(self, went_on: Callable[[], None]) -> None:
        """The model is awake."""
        self.suspended, self._went_on = False, went_on
        self.model.scheduler.resume()
        if not self.has_work:
            self._tell_that_it_went_on()

    def end_all(self, reason: str) -> None:
        """Whatever runs or waits ends with an error."""
        self._collect()
        _deliver(self._fail(self.model.scheduler.sequences, EngineError(reason)))
        self._prefill = None
        self._tell_that_it_went_on()
        if self.suspended:
            self.model.kv.trim()

    def _tell_that_it_went_on(self) -> None:
        if self._went_on:
            call, self._went_on = self._went_on, None
            call()

    def _collect(self) -> None:
        """Let newcomers join and those who left go."""
        scheduler = self.model.scheduler
        while self.inbox:
            scheduler.add(self.inbox.popleft())
        for sequence in scheduler.sequences:
            if sequence.stream.aborted:
                scheduler.finish(sequence)
        scheduler.heed_readers()

    def _decode(self) -> int:
        """The next token of every answer; how many these were."""
        scheduler = self.model.scheduler
        scheduled: Scheduled = []
        try:
            scheduled = scheduler.decode()
            if scheduled:
                tokens = self._lookahead.decode(self.model, scheduled, self._may_go_on)
                if all(count == 1 for _, count in scheduled):
                    took, alone = self._lookahead.took, not scheduler.prefilling
                    scheduler.budget.observe_step(len(scheduled), took, alone=alone)
                _deliver(self._take(scheduled, tokens))
        except Exception as error:
            affected = [sequence for sequence, _ in scheduled] or scheduler.running[:1]
            _deliver(self._fail(affected, error))
        return len(scheduled)

    def _may_go_on(self) -> bool:
        """Whether the next tokens are all that there is to compute."""
        return not (self.model.scheduler.prompts or self.inbox or self._others_wait())

    def _compute_prompts(self, decoding: int, began: float) -> None:
        """As many layers of a chunk of prompts as the step has time for, one at least."""
        scheduler, runner = self.model.scheduler, self.model.runner
        affected = [*scheduler.waiting, *scheduler.running][:1]
        try:
            prompts = scheduler.prompts
            scheduled = scheduler.begin_prefill(scheduler.budget.tokens(decoding, prompts))
            if not scheduled:
                return
            affected = [sequence for sequence, _ in scheduled]
            if self._prefill is None or self._prefill.scheduled is not scheduled:
                self._prefill = runner.begin_prefill(scheduled)
            if self._advance(self._prefill, began + scheduler.budget.seconds(decoding, prompts)):
                tokens = runner.end_prefill(self._prefill)
                scheduler.end_prefill()
                _deliver(self._take(scheduled, tokens))
        except Exception as error:
            if isinstance(error, OutOfMemory) and self.model.kv.waits_for_siblings:
                return  # others run, and give memory back when they have done
            _deliver(self._fail(affected, error))

    def _advance(self, prefill: Prefill, until: float) -> bool:
        """One layer at least, and no more when other engines wait; whether all are done."""
        budget, rows = self.model.scheduler.budget, sum(count for _, count in prefill.scheduled)
        while True:
            began = time.perf_counter()
            more = self.model.runner.advance(prefill)
            measured = self.model.runner.pace()
            now = time.perf_counter()
            if measured:
                budget.observe_layer(rows, now - began)
            if not more:
                return True
            if now + (now - began) / 2 > until or self._others_wait():
                return False

    def _take(self, scheduled: Scheduled, tokens: list[Sampled | None]) -> Results:
        """Give the sequences their tokens, but for those that have left."""
        scheduler = self.model.scheduler
        scheduler.computed(scheduled)
        results: Results = []
        for (sequence, _), token in zip(scheduled, tokens, strict=True):
            if token is None or sequence not in scheduler.running:
                continue
            try:
                results.append((sequence, sequence.append(*token)))
            except Exception as error:
                results += self._fail([sequence], error)
            if sequence.finish_reason:
                scheduler.finish(sequence)
        if results:
            self._tell_that_it_went_on()
        return results

    def _fail(self, sequences: list[Sequence], error: Exception) -> Results:
        """End these sequences with an error; the others and the model go on."""
        told = step_failed(error)
        for sequence in sequences:
            sequence.stream.aborted = True  # its other choices end with it
            self.model.scheduler.finish(sequence)
        return [(sequence, told) for sequence in sequences]


def _deliver(results: Results) -> None:
    DeltaStream.deliver([(sequence.stream, item) for sequence, item in results])
