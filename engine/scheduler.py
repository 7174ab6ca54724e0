"""Who runs in the next step, and with how many tokens.

Continuous batching (Yu et al., 2022): every sequence whose prompt is computed gets a token a step, beside it
a chunk of prompts is computed, first come first served, maybe over several steps. When blocks run out the
sequence that came last gives its own up and is recomputed later; nothing is lost, and what nobody else needed
meanwhile is found again in the prefix cache.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from engine.blocks import BLOCK_SIZE, blocks_for
from engine.chunk import UNIT, StepBudget
from engine.kv_cache import KVCache
from engine.sequence import Sequence
from engine.types import OutOfMemory

Scheduled = list[tuple[Sequence, int]]
"""Sequences and how many of their tokens a pass computes."""

_ROOM_AHEAD: Final = 1024
"""Tokens of an answer for which consecutive blocks are kept free. An answer may be as long as the context
is, but few are, and wide gaps between sequences leave chunks of memory half used."""

_AGAIN: Final = 32
"""Tokens of answers that a step computes again after a preemption, beside the others' next ones."""


class Scheduler:
    """Owns the queues and decides on blocks. Lives on the device's worker thread."""

    def __init__(
        self, kv: KVCache, max_running: int, budget: StepBudget, prompt_variant: Callable[[int], int]
    ) -> None:
        """``prompt_variant``: from a prompt's length; keys are shared within a variant only."""
        self._kv = kv
        self._prompt_variant = prompt_variant
        self._max_running = max_running
        self.budget = budget
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.aside: list[Sequence] = []
        """Those whose readers are too far behind. They have no blocks and take nobody's place."""
        self.prefilling: Scheduled = []
        """The chunk of prompts in the making. Its blocks are held until it ends: it writes into them even if
        its sequence has left."""
        self._held: list[int] = []

    @property
    def has_work(self) -> bool:
        moving = (one.stream.has_room or one.stream.aborted for one in self.aside)
        return bool(self.waiting or self.running) or any(moving)

    @property
    def sequences(self) -> list[Sequence]:
        """All that have not finished."""
        queued = [*self.running, *self.waiting, *self.aside]
        return queued + [follower for sequence in queued for follower in sequence.followers]

    def add(self, sequence: Sequence) -> None:
        """Its followers wait for its prompt."""
        self.waiting.append(sequence)

    def heed_readers(self) -> None:
        """Who is read too slowly makes way, and goes on when the reader has caught up."""
        back = [one for one in self.aside if one.stream.has_room]
        for sequence in [one for one in (*self.running, *self.waiting) if one.stream.full]:
            self._set_aside(sequence)
        for sequence in reversed(back):
            self.aside.remove(sequence)
            self.waiting.appendleft(sequence)

    @property
    def prompts(self) -> int:
        """Sequences that wait for their first token and may have it."""
        free = self._max_running - len(self.running)
        return sum(one.in_prompt for one in self.running) + min(len(self.waiting), free)

    def decode(self) -> Scheduled:
        """The next tokens of all answers, with blocks for them."""
        scheduled: Scheduled = []
        again = _AGAIN
        for sequence in [one for one in self.running if not one.in_prompt]:
            count = min(sequence.left, max(again, 1))
            if sequence in self.running and self._make_room(sequence, scheduled):
                scheduled.append((sequence, count))
                again -= count - 1
        return scheduled

    def ahead(self, scheduled: Scheduled) -> list[Sequence]:
        """Those that go on behind their next token, with blocks for one more: none if there are none left."""
        going = [one for one, _ in scheduled if one.generated + 1 < one.params.max_tokens]
        try:
            for sequence in going:
                self._allocate(sequence, len(sequence.token_ids) + 1)
        except OutOfMemory:
            return []
        return going

    def begin_prefill(self, tokens: int) -> Scheduled:
        """A chunk of so many tokens at most, unless one is in the making. Raises OutOfMemory when nothing
        runs and there is no room for ``waiting[0]``."""
        if not self.prefilling:
            self.prefilling = self._prefills(tokens)
            self._held = [block for sequence, _ in self.prefilling for block in sequence.blocks]
            self._kv.pool.hold(self._held)
        return self.prefilling

    def end_prefill(self) -> None:
        """It has been computed, or is given up."""
        self._kv.pool.release(self._held)
        self.prefilling, self._held = [], []

    def computed(self, scheduled: Scheduled) -> None:
        """A pass has been made: its full blocks can be found, and who waited for a prompt can go on."""
        for sequence, count in scheduled:
            if sequence not in self.running:
                continue
            before = sequence.computed
            sequence.computed += count
            full = range(before // BLOCK_SIZE, sequence.computed // BLOCK_SIZE)
            if full:
                variant = self._prompt_variant(sequence.prompt_length)
                self._kv.pool.publish(sequence.blocks, sequence.token_ids, full, variant)
            if not sequence.in_prompt:
                self._release_followers(sequence)

    def finish(self, sequence: Sequence) -> None:
        """Forget a sequence, wherever it is, and its blocks. The first of those who wait for its prompt
        computes it for the others."""
        self._release(sequence)
        if sequence in self.running:
            self.running.remove(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
        elif sequence in self.aside:
            self.aside.remove(sequence)
        if sequence.followers:
            first, *first.followers = sequence.followers
            sequence.followers = []
            self.waiting.appendleft(first)
        if self.prefilling and not any(one in self.running for one, _ in self.prefilling):
            self.end_prefill()

    def suspend(self, *, keep_kv: bool) -> None:
        """Nobody goes on for now; a chunk of prompts in the making is given up. With ``keep_kv`` sequences
        keep their blocks, as long as no other engine needs the memory."""
        self.end_prefill()
        # Who has never run may be too large for the device, and is nothing to make room for.
        begun = [one for one in self.sequences if one.blocks or one.generated]
        least = max((blocks_for(len(one.token_ids)) for one in begun), default=1)
        while not keep_kv and self._give_up():
            pass
        self._kv.park(least, self._give_up)

    def resume(self) -> None:
        self._kv.unpark()

    def _give_up(self) -> bool:
        """The last of those that have blocks loses them; False when nobody has any."""
        if self._take_from_waiting(None):
            return True
        if self.running:
            self._preempt(self.running[-1])
            return True
        return False

    def _prefills(self, budget: int) -> Scheduled:
        """Prompts and how much of each. All but the last chunk of one are multiples of UNIT."""
        scheduled: Scheduled = []
        for sequence in self.running:
            if count := _chunk(sequence, budget):
                scheduled.append((sequence, count))
                budget -= count
        while self.waiting and len(self.running) < self._max_running and budget > 0:
            sequence = self.waiting[0]
            if not self._admit(sequence):
                break
            self.running.append(self.waiting.popleft())
            if count := _chunk(sequence, budget):
                scheduled.append((sequence, count))
                budget -= count
            elif sequence.in_prompt:
                break
        return scheduled

    def _admit(self, sequence: Sequence) -> bool:
        """Blocks for all of its tokens: one that starts can finish its prompt, or would start over and over.
        Raises OutOfMemory when nobody runs who would give some back."""
        pool = self._kv.pool
        if not sequence.blocks and not sequence.needs_prompt_logits:
            # All but the last token, of which the logits at least are needed.
            variant = self._prompt_variant(sequence.prompt_length)
            found = pool.match(sequence.token_ids[:-1], variant)
            pool.hold(found)
            sequence.begin_with(found)
        while True:
            try:
                self._allocate(sequence, len(sequence.token_ids))
                return True
            except OutOfMemory:
                if self.running or not self._take_from_waiting(sequence):
                    self._release(sequence)
                    if not self.running:
                        raise
                    return False

    def _take_from_waiting(self, needy: Sequence | None) -> bool:
        """Blocks that the last in the queue has in common with others; False when nobody has any."""
        victim = next((one for one in reversed(self.waiting) if one.blocks and one is not needy), None)
        if victim:
            self._release(victim)
        return victim is not None

    def _make_room(self, sequence: Sequence, scheduled: Scheduled) -> bool:
        """A block for a running sequence's next token, taken from the latest comers if need be."""
        taken = {id(other) for other, _ in scheduled}
        while True:
            try:
                self._allocate(sequence, len(sequence.token_ids))
                return True
            except OutOfMemory:
                victim = next(s for s in reversed(self.running) if id(s) not in taken)
                self._preempt(victim)
                if victim is sequence:
                    return False

    def _allocate(self, sequence: Sequence, tokens: int) -> None:
        missing = blocks_for(tokens) - len(sequence.blocks)
        if missing > 0:
            ahead = min(sequence.longest, tokens + _ROOM_AHEAD)
            room = blocks_for(ahead) - len(sequence.blocks)
            after = sequence.blocks[-1] if sequence.blocks else None
            sequence.blocks += self._kv.allocate(missing, after=after, room=room)

    def _release_followers(self, leader: Sequence) -> None:
        """They go on with the prompt's full blocks, and compute the rest of it, a token at least."""
        shared = leader.blocks[: (leader.prompt_length - 1) // BLOCK_SIZE]
        for follower in reversed(leader.followers):
            self._kv.pool.hold(shared)
            follower.begin_with(shared)
            follower.cached_tokens = leader.cached_tokens
            self.waiting.appendleft(follower)
        leader.followers = []

    def _preempt(self, sequence: Sequence) -> None:
        if any(one is sequence for one, _ in self.prefilling):
            self.end_prefill()
        self.running.remove(sequence)
        self._release(sequence)
        self.waiting.appendleft(sequence)

    def _set_aside(self, sequence: Sequence) -> None:
        if sequence in self.running:
            self._preempt(sequence)
        self.waiting.remove(sequence)
        self._release(sequence)
        self.aside.append(sequence)

    def _release(self, sequence: Sequence) -> None:
        self._kv.pool.release(sequence.blocks)
        sequence.begin_with([])


def _chunk(sequence: Sequence, budget: int) -> int:
    left = max(0, sequence.prompt_length - sequence.computed)
    return left if left <= budget else budget // UNIT * UNIT
