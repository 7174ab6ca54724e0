"""One answer in the making: its tokens, its blocks, and the text that it has given out."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence as ListLike
from contextlib import suppress

from engine.tokenizer import IncrementalDecoder, StopMatcher, Tokenizer
from engine.types import Delta, FinishReason, GenerateRequest


class Sequence:
    """Owned by the device's worker from submission on, except for ``aborted``, which the loop may set."""

    def __init__(self, request: GenerateRequest, tokenizer: Tokenizer, eos: frozenset[int]) -> None:
        self.params = request.sampling
        self.seed = secrets.randbits(63) if self.params.seed is None else self.params.seed
        self.token_ids = list(request.prompt_ids)
        self.prompt_length = len(self.token_ids)
        self.computed = 0
        """Tokens whose keys and values are in the cache."""
        self.blocks: list[int] = []
        self.aborted = False
        self.finish_reason: FinishReason | None = None
        self._stop_ids = self.params.stop_token_ids | (frozenset() if self.params.ignore_eos else eos)
        self._decoder = IncrementalDecoder(tokenizer, self.token_ids)
        self._stops = StopMatcher(self.params.stop)
        self._stopped = False
        """A stop string has been met."""
        self._loop = asyncio.get_running_loop()
        self._deltas: asyncio.Queue[Delta | BaseException] = asyncio.Queue()

    @property
    def generated(self) -> int:
        return len(self.token_ids) - self.prompt_length

    @property
    def banned(self) -> tuple[int, ...]:
        """Tokens that may not come yet: those that would end the answer before ``min_tokens``."""
        return tuple(self._stop_ids) if self.generated < self.params.min_tokens else ()

    def append(self, token_id: int) -> Delta:
        """Take the next token; sets ``finish_reason`` when it is the last."""
        self.token_ids.append(token_id)
        if token_id in self._stop_ids:
            self.finish_reason = "stop"
            text = ""
        else:
            text = self._match(self._decoder.push(token_id))
            if self.finish_reason is None and self.generated >= self.params.max_tokens:
                self.finish_reason = "length"
        if self.finish_reason and not self._stopped:
            text += self._match(self._decoder.flush())
            text += self._stops.flush()
        return Delta(token_ids=(token_id,), text=text, finish_reason=self.finish_reason)

    def _match(self, text: str) -> str:
        """The part of ``text`` that can be given out; a stop string in it ends the answer."""
        if self._stopped or self.generated < self.params.min_tokens:
            return "" if self._stopped else text
        text, self._stopped = self._stops.push(text)
        if self._stopped:
            self.finish_reason = "stop"
        return text

    def deliver(self, item: Delta | BaseException) -> None:
        """On the loop: hand the consumer what a step made."""
        self._deltas.put_nowait(item)

    async def next_delta(self) -> Delta:
        item = await self._deltas.get()
        if isinstance(item, BaseException):
            raise item
        return item

    @staticmethod
    def deliver_all(results: ListLike[tuple[Sequence, Delta | BaseException]]) -> None:
        """Cross to the loop once for all of a step's results. Called on the worker thread."""
        loops = {sequence._loop for sequence, _ in results}
        for loop in loops:
            mine = [(s, item) for s, item in results if s._loop is loop]
            with suppress(RuntimeError):  # the loop has been closed: nobody waits any more
                loop.call_soon_threadsafe(_deliver, mine)


def _deliver(results: ListLike[tuple[Sequence, Delta | BaseException]]) -> None:
    for sequence, item in results:
        sequence.deliver(item)
