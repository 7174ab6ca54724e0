"""Who runs in the next step, and with how many tokens.

Continuous batching (Yu et al., 2022) with chunked prefill (Agrawal et al., 2023): every running sequence
decodes one token a step, what is left of the step's tokens goes to prompts, first come first served. When
blocks run out the sequence that came last gives its own up and is recomputed later; nothing is lost.
"""

from __future__ import annotations

from collections import deque

from engine.kv_cache import KVCache, blocks_for
from engine.sequence import Sequence
from engine.types import OutOfMemory

Scheduled = list[tuple[Sequence, int]]
"""Sequences and how many of their tokens the step computes."""


class Scheduler:
    """Owns the queues and decides on blocks. Lives on the device's worker thread."""

    def __init__(self, kv: KVCache, max_running: int, prefill_chunk: int) -> None:
        self._kv = kv
        self._max_running = max_running
        self._prefill_chunk = prefill_chunk
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []

    @property
    def has_work(self) -> bool:
        return bool(self.waiting or self.running)

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)

    def schedule(self) -> Scheduled:
        """The next step. Raises OutOfMemory when nothing runs and there is no room for ``waiting[0]``."""
        scheduled: Scheduled = []
        budget = self._prefill_chunk
        # A sequence is decoding when all but its last token is computed; those go first.
        for sequence in sorted(self.running, key=lambda s: len(s.token_ids) - s.computed > 1):
            if sequence not in self.running:
                continue  # preempted for one before it
            count = self._chunk(sequence)
            if (count == 1 or budget > 0) and self._make_room(sequence, sequence.computed + count, scheduled):
                scheduled.append((sequence, count))
                budget -= count if count > 1 else 0
        while self.waiting and len(self.running) < self._max_running and budget > 0:
            sequence = self.waiting[0]
            count = self._chunk(sequence)
            try:
                # For all of its tokens: one that starts can finish its prompt, or would start over and over.
                self._allocate(sequence, len(sequence.token_ids))
            except OutOfMemory:
                if self.running:
                    break
                raise
            self.running.append(self.waiting.popleft())
            scheduled.append((sequence, count))
            budget -= count
        return scheduled

    def finish(self, sequence: Sequence) -> None:
        """Forget a sequence, wherever it is; its blocks are free."""
        self._release(sequence)
        if sequence in self.running:
            self.running.remove(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def _chunk(self, sequence: Sequence) -> int:
        """Tokens for the sequence's next step. Chunks end at fixed positions of the prompt, whatever else is
        in the step (which may so exceed its budget by a part of one), because kernels round differently
        for other cuts and an answer should not depend on its neighbours."""
        left = len(sequence.token_ids) - sequence.computed
        return min(left, self._prefill_chunk - sequence.computed % self._prefill_chunk)

    def _make_room(self, sequence: Sequence, tokens: int, scheduled: Scheduled) -> bool:
        """Blocks for a running sequence, taken from the latest comers if need be."""
        taken = {id(other) for other, _ in scheduled}
        while True:
            try:
                self._allocate(sequence, tokens)
                return True
            except OutOfMemory:
                victim = next(s for s in reversed(self.running) if id(s) not in taken)
                self._preempt(victim)
                if victim is sequence:
                    return False

    def _allocate(self, sequence: Sequence, tokens: int) -> None:
        missing = blocks_for(tokens) - len(sequence.blocks)
        if missing > 0:
            sequence.blocks += self._kv.allocate(missing)

    def _preempt(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self._release(sequence)
        self.waiting.appendleft(sequence)

    def _release(self, sequence: Sequence) -> None:
        self._kv.free(sequence.blocks)
        sequence.blocks = []
        sequence.computed = 0
