"""Log probabilities as the wire has them, given out with the text that their tokens made.

A token whose text is held back (half a character, what may be the beginning of a stop string) waits for that
text, so that every chunk tells of its own tokens.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections import defaultdict
from collections.abc import Iterable, Sequence

from engine import Delta, Engine, TokenLogprob
from gateway.api.schema.logprobs import (
    ChatLogprobs,
    ChatTokenLogprob,
    PromptLogprob,
    PromptLogprobs,
    TextLogprobs,
    TopLogprob,
)

_LEAST = -9999.0
"""JSON has no minus infinity."""


class ChatLogprobWriter:
    """For the choices of one chat completion."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._held: defaultdict[int, _Held] = defaultdict(_Held)

    def take(self, delta: Delta) -> ChatLogprobs | None:
        """None while there is no text to go with. Tokens whose text a stop cuts off are left out, as is an
        end token: joined, the tokens are the content."""
        released = self._held[delta.index].take(delta)
        if released is None:
            return None
        if delta.finish_reason == "stop":
            released = self._within(released, delta.text)
        return ChatLogprobs(content=[self._entry(logprob) for logprob in released])

    def whole(self, deltas: Iterable[Delta]) -> ChatLogprobs:
        """Of all of one choice."""
        taken = [logprobs for delta in deltas if (logprobs := self.take(delta))]
        return ChatLogprobs(content=[entry for logprobs in taken for entry in logprobs.content])

    def _within(self, released: Sequence[TokenLogprob], text: str) -> list[TokenLogprob]:
        """Those that begin before the text ends."""
        kept, start = [], 0
        for logprob in released:
            size = _size(self._engine, logprob.token_id)
            if size and start < len(text.encode()):
                kept.append(logprob)
            start += size
        return kept

    def _entry(self, logprob: TokenLogprob) -> ChatTokenLogprob:
        data = self._engine.token_bytes(logprob.token_id)
        return ChatTokenLogprob(
            token=_text(data),
            logprob=max(logprob.logprob, _LEAST),
            bytes=list(data),
            top_logprobs=[self._top(token_id, value) for token_id, value in logprob.top],
        )

    def _top(self, token_id: int, value: float) -> TopLogprob:
        data = self._engine.token_bytes(token_id)
        return TopLogprob(token=_text(data), logprob=max(value, _LEAST), bytes=list(data))


class TextLogprobWriter:
    """For one choice of a text completion, whose text begins with ``prefix``, made of ``prompt``."""

    def __init__(
        self, engine: Engine, prefix: str, prompt: Sequence[tuple[int, TokenLogprob | None]] = ()
    ) -> None:
        self._engine = engine
        self._offset = len(prefix)
        """Characters of the text so far."""
        self._prompt = [self._entries(prompt, 0, prefix)] if prompt else []
        self._held = _Held()

    def take(self, delta: Delta) -> TextLogprobs | None:
        """None while there is no text to go with. The prompt's come with the first."""
        released = self._held.take(delta)
        if released is None:
            return None
        start = self._offset
        self._offset += len(delta.text)
        entries = self._entries([(logprob.token_id, logprob) for logprob in released], start, delta.text)
        before, self._prompt = self._prompt, []
        return joined([*before, entries])

    def _entries(
        self, tokens: Sequence[tuple[int, TokenLogprob | None]], start: int, text: str
    ) -> TextLogprobs:
        """Of tokens that made ``text``, which begins at ``start``."""
        offsets, so_far, decoder = [], 0, getincrementaldecoder("utf-8")(errors="replace")
        for token_id, _ in tokens:
            offsets.append(start + min(so_far, len(text)))
            data = self._engine.token_bytes(token_id) if _size(self._engine, token_id) else b""
            so_far += len(decoder.decode(data))
        return TextLogprobs(
            tokens=[_text(self._engine.token_bytes(token_id)) for token_id, _ in tokens],
            token_logprobs=[max(logprob.logprob, _LEAST) if logprob else None for _, logprob in tokens],
            top_logprobs=[self._top(logprob) if logprob else None for _, logprob in tokens],
            text_offset=offsets,
        )

    def _top(self, logprob: TokenLogprob) -> dict[str, float]:
        """The most likely and the token itself; of tokens that look the same, the likeliest."""
        found: dict[str, float] = {}
        for token_id, value in (*logprob.top, (logprob.token_id, logprob.logprob)):
            found.setdefault(_text(self._engine.token_bytes(token_id)), max(value, _LEAST))
        return found


class _Held:
    """Log probabilities of tokens that have no text yet."""

    def __init__(self) -> None:
        self._logprobs: list[TokenLogprob] = []

    def take(self, delta: Delta) -> list[TokenLogprob] | None:
        """All so far when there is text or the answer ends."""
        self._logprobs += delta.logprobs
        if not delta.text and delta.finish_reason is None:
            return None
        released, self._logprobs = self._logprobs, []
        return released


def joined(parts: Sequence[TextLogprobs]) -> TextLogprobs | None:
    if not parts:
        return None
    return TextLogprobs(
        tokens=[item for part in parts for item in part.tokens],
        token_logprobs=[item for part in parts for item in part.token_logprobs],
        top_logprobs=[item for part in parts for item in part.top_logprobs],
        text_offset=[item for part in parts for item in part.text_offset],
    )


def wire_prompt_logprobs(
    engine: Engine, logprobs: Iterable[TokenLogprob | None] | None
) -> PromptLogprobs | None:
    if logprobs is None:
        return None
    return [_by_token_id(engine, logprob) if logprob else None for logprob in logprobs]


def _by_token_id(engine: Engine, logprob: TokenLogprob) -> dict[str, PromptLogprob]:
    ranked = [(token_id, value, rank) for rank, (token_id, value) in enumerate(logprob.top, start=1)]
    return {
        str(token_id): PromptLogprob(
            logprob=max(value, _LEAST), rank=rank, decoded_token=_text(engine.token_bytes(token_id))
        )
        for token_id, value, rank in (*ranked, (logprob.token_id, logprob.logprob, logprob.rank))
    }


def _size(engine: Engine, token_id: int) -> int:
    """Bytes of text that the token makes: none if it is special."""
    return len(engine.token_bytes(token_id)) if engine.decode([token_id]) else 0


def _text(data: bytes) -> str:
    return data.decode(errors="replace")
