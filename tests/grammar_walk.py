"""Random walks through a JSON schema's grammar: what a model says that likes all tokens equally."""

from __future__ import annotations

import random
from functools import cache
from itertools import product
from string import ascii_lowercase, digits
from typing import Any

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from engine import Constraint
from engine.grammar import CompiledGrammar, GrammarCompiler

LONGEST = 1000


class Walker:
    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._end = tokenizer.token_to_id("<|end|>")
        self.compiler = GrammarCompiler(tokenizer.to_str, tokenizer.get_vocab_size(), frozenset({self._end}))

    def walk(self, schema: str, seed: int) -> str | None:
        """None when there are so many tokens and no end."""
        compiled = self.compiler.compile(Constraint(kind="json_schema", value=schema))
        assert isinstance(compiled, CompiledGrammar)
        matcher, chance, tokens = compiled.matcher(), random.Random(seed), []
        while not matcher.finished and len(tokens) < LONGEST:
            mask = np.frombuffer(matcher.state.compute_bitmask(), np.uint8)
            allowed = np.flatnonzero(np.unpackbits(mask, bitorder="little"))
            token = int(allowed[chance.randrange(len(allowed))])
            if token == self._end:
                return self._text(tokens)
            matcher.consume(token)
            tokens.append(token)
        return self._text(tokens) if matcher.finished else None

    def _text(self, tokens: list[int]) -> str:
        text: Any = self._tokenizer.decode(tokens)
        return str(text)


@cache
def walker(wide: bool) -> Walker:
    """``wide``: with as many words, numbers and indentations beside the bytes as large vocabularies have."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    more = [
        *("".join(letters) for size in (2, 3) for letters in product(ascii_lowercase, repeat=size)),
        *("".join(chars) for size in (2, 3) for chars in product(digits, repeat=size)),
        *("Ġ" * size for size in range(2, 17)),
        *("Ċ" + "Ġ" * size for size in range(1, 17)),
        *('{"', '":', '":Ġ"', '",', '"}', "},", '["', "],", "]}", "00", "-1", "true", "null", ".0"),
    ]
    pieces = [*alphabet, *(dict.fromkeys(more) if wide else [])]
    made = tokenizers.Tokenizer(models.BPE({piece: at for at, piece in enumerate(pieces)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<|end|>"])
    return Walker(made)
