"""One answer in the making: its tokens, its blocks, and the text that it has given out."""

from __future__ import annotations

import secrets
from collections.abc import Sequence as ListLike

from engine.blocks import BLOCK_SIZE
from engine.grammar import CompiledGrammar
from engine.penalties import History
from engine.stream import DeltaStream
from engine.tokenizer import IncrementalDecoder, StopMatcher, Tokenizer
from engine.types import Delta, FinishReason, GenerateRequest, TokenLogprob


class Sequence:
    """One choice of a request. Owned by the device's worker from submission on."""

    def __init__(
        self,
        request: GenerateRequest,
        tokenizer: Tokenizer,
        eos: frozenset[int],
        stream: DeltaStream,
        index: int = 0,
    ) -> None:
        self.params = request.sampling
        self.seed = secrets.randbits(63) if self.params.seed is None else self.params.seed + index
        self.stream = stream
        self.index = index
        self.followers: list[Sequence] = []
        """The other choices, while they wait for this one to compute the prompt for all."""
        self.token_ids = list(request.prompt_ids)
        self.prompt_length = len(self.token_ids)
        self.computed = 0
        """Tokens whose keys and values are in the cache."""
        self.blocks: list[int] = []
        self.cached_tokens = 0
        """Of the prompt: those that the prefix cache had."""
        self.finish_reason: FinishReason | None = None
        self.history = History(self.params, request.prompt_ids)
        grammar = self.params.grammar
        self.matcher = grammar.matcher() if isinstance(grammar, CompiledGrammar) else None
        self.prompt_logprobs: list[TokenLogprob | None] = [None]
        """Of the tokens so far, where asked for; the first has none."""
        self._stop_ids = self.params.stop_token_ids | (frozenset() if self.params.ignore_eos else eos)
        self._decoder = IncrementalDecoder(tokenizer, self.token_ids, self.params.shown_tokens)
        self._stops = StopMatcher(self.params.stop)
        self._stopped = False
        """A stop string has been met."""

    @classmethod
    def of(
        cls, request: GenerateRequest, tokenizer: Tokenizer, eos: frozenset[int], stream: DeltaStream
    ) -> Sequence:
        """The first choice, which the others follow."""
        first, *others = (cls(request, tokenizer, eos, stream, index) for index in range(request.n))
        first.followers = others
        return first

    @property
    def left(self) -> int:
        """Tokens to be computed before the next one can be drawn."""
        return len(self.token_ids) - self.computed

    @property
    def in_prompt(self) -> bool:
        """Whether the next token to be computed is one of the prompt's."""
        return self.computed < self.prompt_length

    @property
    def longest(self) -> int:
        """Tokens of prompt and answer when it ends by its length."""
        return self.prompt_length + self.params.max_tokens

    def begin_with(self, blocks: ListLike[int]) -> None:
        """Full blocks that hold its beginning, computed by others; none: it starts anew."""
        self.blocks = list(blocks)
        self.computed = len(blocks) * BLOCK_SIZE
        if not self.generated:
            self.cached_tokens = self.computed

    @property
    def generated(self) -> int:
        return len(self.token_ids) - self.prompt_length

    @property
    def banned(self) -> tuple[int, ...]:
        """Tokens that may not come yet: those that would end the answer before ``min_tokens``."""
        return tuple(self._stop_ids) if self.generated < self.params.min_tokens else ()

    @property
    def needs_prompt_logits(self) -> bool:
        """Whether every token of the prompt must be computed, since its logits are asked for."""
        wanted = self.params.prompt_logprobs is not None and self.index == 0
        return wanted and len(self.prompt_logprobs) < self.prompt_length

    def append(self, token_id: int, logprob: TokenLogprob | None = None) -> Delta:
        """Take the next token, unless there is to be none; sets ``finish_reason`` when nothing is to follow.
        Raises EngineError when the grammar cannot go on."""
        if self.params.max_tokens == 0:
            self.finish_reason = "length"
            return self._delta()
        self.token_ids.append(token_id)
        self.history.add(token_id)
        if self.matcher:
            self.matcher.consume(token_id)
        if token_id in self._stop_ids:
            self.finish_reason = "stop"
            text = ""
        else:
            text = self._match(self._decoder.push(token_id))
            if self.finish_reason is None and self.matcher and self.matcher.finished:
                self.finish_reason = "stop"
            if self.finish_reason is None and self.generated >= self.params.max_tokens:
                self.finish_reason = "length"
        if self.finish_reason and not self._stopped:
            text += self._match(self._decoder.flush())
            text += self._stops.flush()
        return self._delta((token_id,), text, (logprob,) if logprob else ())

    def _delta(
        self, token_ids: tuple[int, ...] = (), text: str = "", logprobs: tuple[TokenLogprob, ...] = ()
    ) -> Delta:
        """The first one tells of the prompt, too."""
        first = self.generated <= 1
        asked = first and self.params.prompt_logprobs is not None and self.index == 0
        return Delta(
            index=self.index,
            token_ids=token_ids,
            text=text,
            finish_reason=self.finish_reason,
            logprobs=logprobs,
            prompt_logprobs=tuple(self.prompt_logprobs) if asked else None,
            cached_tokens=self.cached_tokens if first else 0,
        )

    def _match(self, text: str) -> str:
        """The part of ``text`` that can be given out; a stop string in it ends the answer."""
        if self._stopped or self.generated < self.params.min_tokens:
            return "" if self._stopped else text
        text, self._stopped = self._stops.push(text)
        if self._stopped:
            self.finish_reason = "stop"
        return text
