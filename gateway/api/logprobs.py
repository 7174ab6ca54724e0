"""Log probabilities as the wire has them, given out with the text that their tokens made."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import partial

from msgspec.structs import replace

from engine import Delta, TokenLogprob
from gateway.api.placing import PlacedToken, Placer
from gateway.api.raw import encoded_each
from gateway.api.schema.logprobs import LEAST, ChatLogprobs, ChatTokenLogprob, TextLogprobs, TopLogprob
from gateway.api.spelling import Spelling


class ChatLogprobWriter:
    """For the choices of one chat completion."""

    def __init__(self, spelling: Spelling, prompt_ids: Sequence[int]) -> None:
        self._spelling = spelling
        self._placers: defaultdict[int, Placer] = defaultdict(partial(Placer, spelling, prompt_ids))

    def take(self, delta: Delta) -> ChatLogprobs | None:
        """None while there is no text to go with. Joined, the tokens are the text: those that are not part of
        it, as an end token, are left out, and the one within which a stop cuts it off is cut, too."""
        placer = self._placers[delta.index]
        released = placer.take(delta)
        if released is None:
            return None
        if delta.finish_reason == "stop":
            said = [(token.logprob, token.within(placer.given)) for token in released]
        else:
            said = [(token.logprob, token.data) for token in released]
        return ChatLogprobs(
            content=[self._entry(logprob, data) for logprob, data in said if logprob and data]
        )

    def whole(self, deltas: Iterable[Delta]) -> ChatLogprobs:
        """Of all of one choice, encoded token by token."""
        taken = (logprobs for delta in deltas if (logprobs := self.take(delta)))
        return ChatLogprobs(content=encoded_each(entry for logprobs in taken for entry in logprobs.content))

    def _entry(self, logprob: TokenLogprob, data: bytes) -> ChatTokenLogprob:
        whole = data == self._spelling.data(logprob.token_id)
        return ChatTokenLogprob(
            token=self._spelling.text(logprob.token_id) if whole else data.decode(errors="replace"),
            logprob=max(logprob.logprob, LEAST),
            bytes=self._spelling.listed(logprob.token_id) if whole else list(data),
            top_logprobs=[self._top(token_id, value) for token_id, value in logprob.top],
        )

    def _top(self, token_id: int, value: float) -> TopLogprob:
        spelling = self._spelling
        return TopLogprob(
            token=spelling.text(token_id), logprob=max(value, LEAST), bytes=spelling.listed(token_id)
        )


class TextLogprobWriter:
    """For one choice of a text completion, whose text begins with ``prefix``."""

    def __init__(
        self, spelling: Spelling, prompt_ids: Sequence[int], prefix: str, echo: TextLogprobs | None = None
    ) -> None:
        """``echo``: of the tokens of ``prefix``."""
        self._spelling = spelling
        self._start = len(prefix)
        self._echo = [] if echo is None else [echo]
        self._placer = Placer(spelling, prompt_ids)

    def take(self, delta: Delta) -> TextLogprobs | None:
        """None while there is no text to go with. The prompt's come with the first."""
        released = self._placer.take(delta)
        if released is None:
            return None
        echo, self._echo = self._echo, []
        return joined([*echo, _columns(self._spelling, released, self._placer.given, start=self._start)])

    def whole(self, deltas: Iterable[Delta]) -> TextLogprobs | None:
        """Of all of it, encoded as far as it is large."""
        return joined([_lightened(logprobs) for delta in deltas if (logprobs := self.take(delta))])


def echoed_logprobs(
    spelling: Spelling, token_ids: Sequence[int], logprobs: Sequence[TokenLogprob | None], text: str
) -> TextLogprobs:
    """Of a prompt, of which ``text`` was made or which was made of it; encoded as far as it is large."""
    placer = Placer(spelling)
    for token_id, logprob in zip(token_ids, logprobs, strict=True):
        placer.place(token_id, logprob)
    return _lightened(_columns(spelling, placer.release(text, ended=True), len(text)))


def joined(parts: Sequence[TextLogprobs]) -> TextLogprobs | None:
    if len(parts) < 2:
        return parts[0] if parts else None
    return TextLogprobs(
        tokens=[item for part in parts for item in part.tokens],
        token_logprobs=[item for part in parts for item in part.token_logprobs],
        top_logprobs=[item for part in parts for item in part.top_logprobs],
        text_offset=[item for part in parts for item in part.text_offset],
    )


def _columns(spelling: Spelling, tokens: Sequence[PlacedToken], end: int, *, start: int = 0) -> TextLogprobs:
    """Of tokens of a text that begins at ``start`` and has ``end`` characters: what a stop has cut off is at
    its end."""
    return TextLogprobs(
        tokens=[spelling.text(token.token_id) for token in tokens],
        token_logprobs=[max(token.logprob.logprob, LEAST) if token.logprob else None for token in tokens],
        top_logprobs=[_top(spelling, token.logprob) if token.logprob else None for token in tokens],
        text_offset=[start + min(token.start, end) for token in tokens],
    )


def _top(spelling: Spelling, logprob: TokenLogprob) -> dict[str, float]:
    """The most likely and the token itself; of tokens that look the same, the likeliest."""
    found: dict[str, float] = {}
    for token_id, value in (*logprob.top, (logprob.token_id, logprob.logprob)):
        found.setdefault(spelling.text(token_id), max(value, LEAST))
    return found


def _lightened(logprobs: TextLogprobs) -> TextLogprobs:
    return replace(logprobs, top_logprobs=encoded_each(logprobs.top_logprobs))
