"""Where each token of an answer lies in its text.

The text comes when it is certain, not with the tokens that make it: half a character waits for the other one,
and what may be the beginning of a stop string for what follows, be it within a token. So tokens wait here
until the text has them whole.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Sequence
from dataclasses import dataclass

from engine import Delta, TokenLogprob
from gateway.api.spelling import Spelling

_DECODER = getincrementaldecoder("utf-8")


@dataclass(slots=True)
class PlacedToken:
    """``start`` and ``end``: characters of the text before it, and with it."""

    token_id: int
    logprob: TokenLogprob | None
    data: bytes
    """What it adds to the text."""
    before: bytes
    """Half a character that it goes on with."""
    start: int
    end: int

    def within(self, length: int) -> bytes:
        """What it adds to the first ``length`` characters."""
        if self.end <= length:
            return self.data
        if self.start >= length:
            return b""
        counts = [self._characters(size) for size in range(len(self.data))]
        return self.data[: counts.index(max(count for count in counts if count <= length - self.start))]

    def _characters(self, size: int) -> int:
        """How many the first ``size`` bytes complete."""
        return len(_DECODER(errors="replace").decode(self.before + self.data[:size]))


class Placer:
    """For one choice."""

    def __init__(self, spelling: Spelling, prompt_ids: Sequence[int] = ()) -> None:
        self._spelling = spelling
        self._begun = any(map(spelling.written, reversed(prompt_ids)))
        """There are tokens before the next one, if only the prompt's, that are text."""
        self._decoder = _DECODER(errors="replace")
        self._made = 0
        """Characters that the tokens so far have completed."""
        self._waiting: list[PlacedToken] = []
        self.given = 0
        """Characters of the text so far."""

    def take(self, delta: Delta) -> Sequence[PlacedToken] | None:
        """Those that the text has whole, at the end of the answer all; None while there is no text for them
        to go with."""
        for logprob in delta.logprobs:
            self.place(logprob.token_id, logprob)
        ended = delta.finish_reason is not None
        return self.release(delta.text, ended=ended) if delta.text or ended else None

    def release(self, text: str, *, ended: bool) -> Sequence[PlacedToken]:
        """What is to go with ``text``, the next part."""
        self.given += len(text)
        ready = len(self._waiting)
        if not ended:
            ready = next((at for at, token in enumerate(self._waiting) if token.end > self.given), ready)
        released, self._waiting = self._waiting[:ready], self._waiting[ready:]
        return released

    def place(self, token_id: int, logprob: TokenLogprob | None) -> None:
        """The next token."""
        data = self._spelling.written(token_id)
        if data and not self._begun:
            data, self._begun = self._spelling.first(token_id), True
        before, _ = self._decoder.getstate()
        start = self._made
        self._made += len(self._decoder.decode(data))
        half, _ = self._decoder.getstate()
        self._waiting.append(PlacedToken(token_id, logprob, data, before, start, self._made + bool(half)))
