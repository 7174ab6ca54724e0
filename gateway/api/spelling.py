"""How the tokens of a model look, each looked up once."""

from __future__ import annotations

from engine import Engine


class Spelling:
    def __init__(self, engine: Engine, shown_tokens: frozenset[int] = frozenset()) -> None:
        """``shown_tokens``: special tokens that are part of the text, as others are not."""
        self._engine = engine
        self._shown = shown_tokens
        self._known: dict[int, tuple[bytes, str, list[int]]] = {}
        self._special: dict[int, bool] = {}

    def data(self, token_id: int) -> bytes:
        """What it stands for, which may be half a character."""
        return self._look(token_id)[0]

    def text(self, token_id: int) -> str:
        return self._look(token_id)[1]

    def listed(self, token_id: int) -> list[int]:
        """Its bytes. Not to be changed."""
        return self._look(token_id)[2]

    def written(self, token_id: int) -> bytes:
        """What it adds to an answer's text: nothing if it is special and not shown."""
        return b"" if self._is_hidden(token_id) else self.data(token_id)

    def first(self, token_id: int) -> bytes:
        """The same at the beginning of a text, where some tokenizers leave out a space."""
        data = self.data(token_id)
        shortened = self._engine.decode([token_id], skip_special_tokens=False).encode()
        return shortened if data == b" " + shortened else data

    def _look(self, token_id: int) -> tuple[bytes, str, list[int]]:
        if token_id not in self._known:
            data = self._engine.token_bytes(token_id)
            self._known[token_id] = (data, data.decode(errors="replace"), list(data))
        return self._known[token_id]

    def _is_hidden(self, token_id: int) -> bool:
        if token_id in self._shown:
            return False
        if token_id not in self._special:
            # A space that is alone may be nothing, too, but with special tokens no less than without them.
            decode = self._engine.decode
            visible = decode([token_id]) or not decode([token_id], skip_special_tokens=False)
            self._special[token_id] = not visible
        return self._special[token_id]
