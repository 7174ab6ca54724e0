"""Constrained output: what form an answer must have, as the tokens that may come next (by llguidance).

A compiled grammar is shared, each answer walks it with a matcher of its own. Any thread may compile; matchers
belong to the device's worker.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from engine.grammar_errors import reason
from engine.types import Constraint, EngineError, Grammar, RequestError

if TYPE_CHECKING:
    from llguidance import LLExecutor, LLMatcher, LLTokenizer

_CACHED = 32
"""Grammars a model keeps: that of a small schema takes 0.1 to 0.25 MB."""
_PROBED = 3
"""Steps that a grammar is tried for: one too large shows when its lexer is at work."""
_ITEMS = 10_000
"""Alternatives of a step, five times llguidance's limit: a schema of 500 optional properties has 2,000."""
_LONGEST = 256 * 1024
"""Characters of a constraint; llguidance's own limits bound what these may mean."""
_WHITESPACE = r"\x20|\x0A[\x20\x09]{0,32}"
"""Between the parts of a JSON text: a space or an indented line, and not for ever, as weak models would."""


@dataclass(frozen=True, slots=True)
class CompiledGrammar:
    constraint: Constraint
    _start: LLMatcher
    _words: int

    def matcher(self) -> Matcher:
        return Matcher(self._start.deep_copy(), self._words)


class Matcher:
    """How far one answer has come in its grammar."""

    def __init__(self, state: LLMatcher, words: int) -> None:
        """``words``: of 32 bits, that a mask over the tokenizer's vocabulary has."""
        self.state = state
        self.words = words

    @property
    def finished(self) -> bool:
        """Whether nothing but an end-of-sequence token can follow."""
        return self.state.is_stopped()

    def consume(self, token_id: int) -> None:
        """The token that came. Raises EngineError when the grammar has grown beyond its limits."""
        self.state.consume_token(token_id)
        if self.state.is_error():
            raise EngineError(
                f"the constraint cannot be followed: {reason(self.state.get_error(), lines=False)}"
            )


class GrammarCompiler:
    """Compiles for one tokenizer, which is prepared when the first constraint comes and kept."""

    def __init__(self, tokenizer_json: Callable[[], str], vocab_size: int, eos: frozenset[int]) -> None:
        """``vocab_size``: at least the tokenizer's; ids beyond it never match."""
        self._tokenizer_json = tokenizer_json
        self._vocab_size = vocab_size
        self._eos = sorted(eos)
        self._preparing = threading.Lock()
        self.compile = lru_cache(_CACHED)(self._compile)

    def _compile(self, constraint: Constraint) -> Grammar:
        """Raises RequestError."""
        from llguidance import LLMatcher, LLParserLimits

        if sum(map(len, (*constraint.value, constraint.frame or ""))) > _LONGEST:
            raise RequestError(f"the constraint is longer than {_LONGEST} characters")
        try:
            text = _grammar_text(constraint)
        except (ValueError, RecursionError) as error:
            raise RequestError(f"the constraint is malformed: {reason(str(error), lines=False)}") from None
        with self._preparing:
            tokenizer = self._tokenizer
        limits = LLParserLimits(max_items_in_row=_ITEMS, verbose_errors=False)
        start = LLMatcher(tokenizer, text, log_level=0, limits=limits)
        if fault := start.get_error() or _error_in(start.deep_copy()):
            lines = (
                text == constraint.value and "%json" not in text
            )  # or they are of what is not the client's
            raise RequestError(f"the constraint cannot be enforced: {reason(fault, lines=lines)}")
        return CompiledGrammar(constraint, start, -(-self._vocab_size // 32))

    @cached_property
    def _tokenizer(self) -> LLTokenizer:
        from llguidance import LLTokenizer

        try:
            return LLTokenizer(self._tokenizer_json(), n_vocab=self._vocab_size, eos_token=self._eos or None)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic in the library is not an Exception
            raise RequestError(
                f"this model's tokenizer allows no constraints: {reason(str(error), lines=False)}"
            ) from None


def _grammar_text(constraint: Constraint) -> str:
    """llguidance's own form. Raises ValueError."""
    if constraint.frame is None:
        return _body_text(constraint)
    text = _body_text(constraint)
    body = json.loads(text)["grammars"][0] if text.lstrip().startswith("{") else {"lark_grammar": text}
    return json.dumps({"grammars": [{"lark_grammar": constraint.frame}, {**body, "name": "body"}]})


def _body_text(constraint: Constraint) -> str:
    from llguidance import LLMatcher, grammar_from

    value = constraint.value
    if isinstance(value, tuple):
        if not value:
            raise ValueError("there is nothing to choose from")
        return grammar_from("choice", json.dumps(value))
    match constraint.kind:
        case "json":
            return _json_grammar('{"type": "object"}')
        case "json_schema":
            if not isinstance(json.loads(value), dict):
                raise ValueError("a JSON schema is an object")
            return _json_grammar(value)
        case "regex":
            return LLMatcher.grammar_from_regex(value)
        case _:
            return grammar_from("grammar", value)


def _error_in(matcher: LLMatcher) -> str:
    """Of the first steps; empty when they go well."""
    for _ in range(_PROBED):
        mask = np.frombuffer(matcher.compute_bitmask(), np.uint8)
        allowed = np.flatnonzero(np.unpackbits(mask, bitorder="little"))
        if not allowed.size:
            return "no token of this model can go on"
        if matcher.is_stopped() or not matcher.consume_token(int(allowed[-1])):
            break
    return matcher.get_error()


def _json_grammar(schema: str) -> str:
    from llguidance import LLMatcher

    return LLMatcher.grammar_from_json_schema(schema, overrides={"whitespace_pattern": _WHITESPACE})


def allowed_tokens(matchers: Sequence[Matcher], vocab_size: int) -> torch.Tensor:
    """Which tokens may come next: bool [matchers, vocab_size]. The matchers are of one tokenizer."""
    words = np.zeros((len(matchers), max(matcher.words for matcher in matchers)), np.int32)
    states = [(matcher.state, row) for row, matcher in enumerate(matchers)]
    _executor().unsafe_compute_mask_ptr(states, words.ctypes.data, words.strides[0], len(matchers))
    bits = np.unpackbits(words.view(np.uint8), axis=1, count=vocab_size, bitorder="little")
    return torch.from_numpy(bits).view(torch.bool)


@cache
def _executor() -> LLExecutor:
    from llguidance import LLExecutor

    return LLExecutor()
