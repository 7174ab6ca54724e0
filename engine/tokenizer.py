"""Text to token ids and back, whole or as it comes."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Final, Literal

import tokenizers

from engine.types import CheckpointError

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # a batch of one needs no threads of its own

_LONG: Final = 1000
"""Tokens whose text takes longer to make than another thread should wait."""

Side = Literal["start", "end"]

_CONTEXT = 6
_HALF = 3
"""Most tokens of a character that is not complete: it has four bytes at most."""
_REPLACEMENT = "\ufffd"
_HIDDEN = "\ue000"
"""For private use: no text has it."""
_BYTE_TOKEN = re.compile("<0x([0-9A-F]{2})>")


def _byte_alphabet() -> dict[str, int]:
    """The characters that byte-level vocabularies write bytes with, those that can be printed as they are
    (Radford et al., 2019)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(others)}


_BYTE_OF = _byte_alphabet()


class Tokenizer:
    """A checkpoint's ``tokenizer.json``. Thread-safe."""

    def __init__(self, path: Path) -> None:
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise CheckpointError(f"{path}: {error}", reason="tokenizer.json cannot be read") from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def lowercase(self) -> None:
        """From now on, lowercase what is encoded, before whatever else is done with it."""
        steps = [tokenizers.normalizers.Lowercase(), self._tokenizer.normalizer]
        self._tokenizer.normalizer = tokenizers.normalizers.Sequence([step for step in steps if step])

    @property
    def size(self) -> int:
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    def longest_token_bytes(self) -> int:
        """An upper bound of the bytes of text that one token can stand for."""
        return max((len(token.encode()) for token in self._tokenizer.get_vocab()), default=1)

    def token_id(self, token: str) -> int | None:
        return self._tokenizer.token_to_id(token)

    def token(self, token_id: int) -> str:
        """As the vocabulary spells it; empty for an id that it does not have."""
        return self._tokenizer.id_to_token(token_id) or ""

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        # Of the ways to encode, those of batches alone let other threads run meanwhile.
        (encoding,) = self._tokenizer.encode_batch_fast([text], add_special_tokens=add_special_tokens)
        return encoding.ids

    def encode_part(self, text: str, most: int, keep: Side, *, add_special_tokens: bool = True) -> list[int]:
        """As ``encode``, but at most so many tokens: what is between the special ones is cut."""
        (encoding,) = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)
        special = self._tokenizer.num_special_tokens_to_add(False) if add_special_tokens else 0
        encoding.truncate(max(most - special, 0), direction="left" if keep == "end" else "right")
        whole: list[int] = self._tokenizer.post_process(encoding, None, add_special_tokens).ids
        return whole[:most]

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        if len(token_ids) > _LONG:
            return self._tokenizer.decode_batch([token_ids], skip_special_tokens=skip_special_tokens)[0]
        return self._tokenizer.decode(token_ids, skip_special_tokens=skip_special_tokens)

    def token_bytes(self, token_id: int) -> bytes:
        """What the token stands for, which may be half a character; a special token's name."""
        token = self.token(token_id)
        if token_id in self._added:
            return token.encode()
        if self._byte_level:
            return bytes(_BYTE_OF[char] for char in token)
        if byte := _BYTE_TOKEN.fullmatch(token):
            return bytes([int(byte[1], 16)])
        return token.replace("▁", " ").encode()

    def to_json(self) -> str:
        """In which special tokens go by other names: a text that spells their own is made of other tokens."""
        told = json.loads(self._tokenizer.to_str())
        names = {token["content"] for token in told["added_tokens"] if token["special"]}
        for token in told["added_tokens"]:
            if token["content"] in names:
                token["content"] = _HIDDEN + token["content"]
        vocabulary = told["model"]["vocab"]
        by_name = isinstance(vocabulary, dict)
        named = vocabulary.items() if by_name else vocabulary
        renamed = [(_HIDDEN + name if name in names else name, value) for name, value in named]
        told["model"]["vocab"] = dict(renamed) if by_name else renamed
        return json.dumps(told)

    @cached_property
    def _added(self) -> frozenset[int]:
        return frozenset(self._tokenizer.get_added_tokens_decoder())

    @cached_property
    def special(self) -> frozenset[int]:
        """Ids that are not part of the text."""
        added = self._tokenizer.get_added_tokens_decoder()
        return frozenset(token_id for token_id, token in added.items() if token.special)

    @cached_property
    def _byte_level(self) -> bool:
        return "ByteLevel" in repr(self._tokenizer.decoder)


class IncrementalDecoder:
    """The text of a growing sequence of tokens, piece by piece.

    A tokenizer may write a token differently at the start of a text than within it, and a character may span
    tokens. So a window that begins with tokens already written is decoded, its known text is cut off, and
    nothing is given out while the text ends in half a character. The window begins with a whole one.
    """

    def __init__(
        self, tokenizer: Tokenizer, prompt_ids: Sequence[int], shown: frozenset[int] = frozenset()
    ) -> None:
        """``shown``: special tokens that are part of the text."""
        self._hidden = tokenizer.special - shown
        self._decode = partial(tokenizer.decode, skip_special_tokens=False)
        visible = (token for token in reversed(prompt_ids) if token not in self._hidden)
        self._window = _end_of(list(islice(visible, _CONTEXT + _HALF))[::-1], self._decode)
        self._written = len(self._window)
        """Tokens of the window whose text has been given out."""
        self._known = self._decode(self._window)
        """Their text."""

    def push(self, token_id: int) -> str:
        """The text that this token completes; empty while a character is incomplete."""
        if token_id in self._hidden:
            return ""
        self._window.append(token_id)
        text, end = self._decode(self._window), len(self._window)
        if not text.endswith(_REPLACEMENT):
            return self._give(text, end)
        if end - self._written <= _HALF:
            return ""
        end = self._certain(text)
        return self._give(self._decode(self._window[:end]), end)

    def flush(self) -> str:
        """What was held back, as it is."""
        return self._give(self._decode(self._window), len(self._window))

    def _certain(self, text: str) -> int:
        """More is held than half a character can be, as in a stammer of bytes that are none: where the window
        can be cut before the last few tokens without a change of its text."""
        end = len(self._window)
        for cut in range(end - _HALF, end):
            parts = (self._decode(part) for part in (self._window[:cut], self._window[cut:]))
            if "".join(parts) == text:
                return cut
        return self._written

    def _give(self, text: str, end: int) -> str:
        """What is new in ``text``, that of the window's tokens up to ``end``."""
        fresh = text[len(self._known) :]
        if fresh:
            self._window = self._window[self._written :]
            self._written = end - self._written
            self._known = self._decode(self._window[: self._written])
        return fresh


def _end_of(ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> list[int]:
    """The last few of ``ids``, beginning with a whole character if possible."""
    windows = [list(ids[-count:]) for count in range(_CONTEXT, _CONTEXT + _HALF + 1)]
    clean = (window for window in windows if not decode(window).startswith(_REPLACEMENT))
    return next(clean, windows[0])


class StopMatcher:
    """Cuts text at the first stop string, holding back what may be the beginning of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""

    def push(self, text: str) -> tuple[str, bool]:
        """(text that is certain, whether a stop string was met)."""
        self._held += text
        found = [at for at in map(self._held.find, self._stops) if at >= 0]
        if found:
            certain, self._held = self._held[: min(found)], ""
            return certain, True
        keep = max((self._overlap(stop) for stop in self._stops), default=0)
        cut = len(self._held) - keep
        certain, self._held = self._held[:cut], self._held[cut:]
        return certain, False

    def flush(self) -> str:
        held, self._held = self._held, ""
        return held

    def _overlap(self, stop: str) -> int:
        """Length of the longest end of the held text that begins ``stop``."""
        longest = min(len(stop) - 1, len(self._held))
        return next((n for n in range(longest, 0, -1) if self._held.endswith(stop[:n])), 0)
