"""The step of answers behind the one that the device is at, queued before anybody knows the tokens of that:
the device need not wait while they become text.

What it computes for an answer that turns out to have ended is thrown away. Whoever gets the blocks of that
one is computed behind it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from engine.model import Model
from engine.runner import DecodePass
from engine.sampler import Sampled
from engine.scheduler import Scheduled


class Lookahead:
    """Of one model. Lives on the device's worker thread."""

    def __init__(self) -> None:
        self.took = 0.0
        """Seconds that the device was at the last step."""
        self._queued: DecodePass | None = None
        self._done_at = 0.0

    def decode(
        self, model: Model, scheduled: Scheduled, may_go_on: Callable[[], bool]
    ) -> list[Sampled | None]:
        """Per sequence its next token, None while others are to be computed before that. ``may_go_on``:
        whether nothing else is to be computed before the next step."""
        began = time.perf_counter()
        step = self._take_queued(scheduled)
        if step is None:
            step = model.runner.decode(scheduled)
        else:
            began = self._done_at
        if step.on_device and may_go_on():
            self._queue_next(model, step, scheduled)
        tokens = {id(one): token for (one, _), token in zip(step.scheduled, step.wait(), strict=True)}
        self._done_at = time.perf_counter()
        self.took = self._done_at - began
        return [tokens[id(sequence)] for sequence, _ in scheduled]

    def drop(self) -> None:
        """Forget what is queued: nobody goes on with it who may come back and be computed anew."""
        self._queued = None

    def _take_queued(self, scheduled: Scheduled) -> DecodePass | None:
        """If nobody has joined since."""
        step, self._queued = self._queued, None
        queued = {id(sequence) for sequence, _ in step.scheduled} if step else set()
        return step if all(id(sequence) in queued for sequence, _ in scheduled) else None

    def _queue_next(self, model: Model, step: DecodePass, scheduled: Scheduled) -> None:
        going = model.scheduler.ahead(scheduled)
        if going:
            self._queued = model.runner.decode_after(step, going)
