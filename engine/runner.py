"""Passes through the model as tensors: from the scheduled sequences to their next tokens."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as ListLike
from dataclasses import dataclass, field
from typing import Final, Self

import torch

from engine.batch import Batch
from engine.graphs import DecodeGraphs
from engine.kv_cache import KVCache
from engine.logprobs import token_logprobs
from engine.models.decoder import Decoder, Forward
from engine.pace import Pace, computed_at_once
from engine.sampler import Sampled, SampleRow, choice, sample
from engine.scheduler import Scheduled
from engine.sequence import Sequence

_SCORED = 64
"""Rows of a prompt whose logits are held at a time: 39 MB at a vocabulary of 152,000."""
_ANY: Final = (0.0,) * 5
"""Settings of a row whose token is not chosen by them, and soon is."""


@dataclass(slots=True)
class _Batch(Batch):
    """And which of its rows are of interest."""

    scored: list[int] = field(default_factory=list)
    """Rows that tell the log probability of a prompt's next token."""
    targets: list[tuple[Sequence, int]] = field(default_factory=list)
    """For each of these, whose prompt, and that token."""
    sampled: list[int] = field(default_factory=list)
    """Rows that the next tokens are drawn from."""
    samples: list[SampleRow | None] = field(default_factory=list)
    """Per sequence how its next token is drawn; None while others are to be computed before that."""

    @classmethod
    def of(cls, scheduled: Scheduled) -> Self:
        batch = cls()
        for sequence, count in scheduled:
            batch._add(sequence, count)
        return batch

    def _add(self, sequence: Sequence, count: int) -> None:
        first, stop = sequence.computed, sequence.computed + count
        offset = len(self.token_ids) - first
        self.add(sequence.token_ids[first:stop], first, sequence.prompt_length, sequence.blocks)
        if sequence.needs_prompt_logits:
            for position in range(len(sequence.prompt_logprobs) - 1, min(stop, sequence.prompt_length - 1)):
                self.scored.append(offset + position)
                self.targets.append((sequence, sequence.token_ids[position + 1]))
        last = stop == len(sequence.token_ids)
        self.samples.append(_sample_row(sequence, stop) if last else None)
        if last:
            self.sampled.append(offset + stop - 1)

    def add_next(self, sequence: Sequence) -> None:
        """The token that comes next, whichever it will be."""
        first = len(sequence.token_ids)
        self.add([0], first, sequence.prompt_length, sequence.blocks)
        self.samples.append(_sample_row(sequence, first + 1))

    @property
    def plain(self) -> bool:
        """Whether settings alone decide on every sequence's next token."""
        return all(row is not None and row.plain for row in self.samples)


@dataclass(frozen=True, slots=True)
class DecodePass:
    """The next tokens of answers, which the device may still be at."""

    scheduled: Scheduled
    wait: Callable[[], list[Sampled | None]]
    """Per sequence its next token, None while others are to be computed before that."""
    on_device: bool = False
    """Whether the device goes on from them without anybody's waiting."""


@dataclass(frozen=True, slots=True)
class Prefill:
    """A pass of prompts that may stop behind any layer."""

    scheduled: Scheduled
    batch: _Batch
    forward: Forward


@dataclass(frozen=True, slots=True)
class Runner:
    decoder: Decoder
    kv: KVCache
    device: torch.device
    graphs: DecodeGraphs | None = None
    """Where the device has such."""
    pace: Pace = computed_at_once

    @torch.inference_mode()
    def decode(self, scheduled: Scheduled) -> DecodePass:
        """Compute tokens of answers."""
        batch = _Batch.of(scheduled)
        if self.graphs and not batch.scored and self.graphs.takes(batch):
            queued = self._replay(self.graphs, scheduled, batch)
            if queued:
                return queued
        drawn = self._end(batch, batch.begin(self.decoder, self.kv.layers, self.device, generated=True))
        return DecodePass(scheduled, lambda: drawn)

    @torch.inference_mode()
    def decode_after(self, before: DecodePass, sequences: ListLike[Sequence]) -> DecodePass | None:
        """Let the device compute the tokens after those of ``before``, which are on it and which it may still
        be at, for some of the sequences. None where there is no graph for so few yet."""
        assert self.graphs and before.on_device
        batch = _Batch()
        for sequence in sequences:
            batch.add_next(sequence)
        rows = {id(sequence): row for row, (sequence, _) in enumerate(before.scheduled)}
        after = [rows[id(sequence)] for sequence in sequences]
        return self._replay(self.graphs, [(sequence, 1) for sequence in sequences], batch, after)

    def _replay(
        self, graphs: DecodeGraphs, scheduled: Scheduled, batch: _Batch, after: list[int] | None = None
    ) -> DecodePass | None:
        plain = batch.plain
        settings = [choice(row) if row and plain else _ANY for row in batch.samples]
        replayed = graphs.replay(batch, settings, after)
        if replayed is None:
            return None
        if plain:
            return DecodePass(scheduled, lambda: _plain(replayed.chosen()), on_device=True)
        logits = replayed.logits
        drawn = _draw(batch, logits if len(batch.sampled) == len(logits) else logits[batch.sampled])
        return DecodePass(scheduled, lambda: drawn)

    @torch.inference_mode()
    def begin_prefill(self, scheduled: Scheduled) -> Prefill:
        """Of tokens of prompts."""
        batch = _Batch.of(scheduled)
        forward = batch.begin(self.decoder, self.kv.layers, self.device, generated=False)
        return Prefill(scheduled, batch, forward)

    @torch.inference_mode()
    def advance(self, prefill: Prefill) -> bool:
        """Compute one layer; whether there are more."""
        return self.decoder.advance(prefill.forward)

    @torch.inference_mode()
    def end_prefill(self, prefill: Prefill) -> list[Sampled | None]:
        """Per sequence its first token, None while its prompt is unfinished, or the answer has begun."""
        return self._end(prefill.batch, prefill.forward)

    def _end(self, batch: _Batch, forward: Forward) -> list[Sampled | None]:
        rows = torch.tensor(batch.scored + batch.sampled, dtype=torch.int64, device=self.device)
        hidden = self.decoder.hidden(forward, rows)
        scored = len(batch.scored)
        self._score(batch.targets, hidden[:scored])
        return _draw(batch, self.decoder.logits(hidden[scored:]) if batch.sampled else None)

    def _score(self, targets: ListLike[tuple[Sequence, int]], hidden: torch.Tensor) -> None:
        """Add to the log probabilities of prompts, piece by piece."""
        for start in range(0, len(targets), _SCORED):
            piece = targets[start : start + _SCORED]
            logits = self.decoder.logits(hidden[start : start + _SCORED])
            token_ids = torch.tensor([token for _, token in piece], device=self.device)
            tops = [sequence.params.prompt_logprobs or 0 for sequence, _ in piece]
            for (sequence, _), logprob in zip(piece, token_logprobs(logits, token_ids, tops), strict=True):
                sequence.prompt_logprobs.append(logprob)


def _draw(batch: _Batch, logits: torch.Tensor | None) -> list[Sampled | None]:
    """``logits`` of the rows that are sampled, if any are."""
    samples = [row for row in batch.samples if row]
    drawn = iter(() if logits is None else sample(logits, samples))
    return [next(drawn) if row else None for row in batch.samples]


def _plain(token_ids: ListLike[int]) -> list[Sampled | None]:
    return [Sampled(token, None) for token in token_ids]


def _sample_row(sequence: Sequence, position: int) -> SampleRow:
    return SampleRow(
        params=sequence.params,
        seed=sequence.seed,
        position=position,
        history=sequence.history,
        matcher=sequence.matcher,
        banned=sequence.banned,
    )
