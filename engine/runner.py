"""Passes through the model as tensors: from the scheduled sequences to their next tokens."""

from __future__ import annotations

from collections.abc import Sequence as ListLike
from dataclasses import dataclass, field
from typing import Self

import torch

from engine.batch import Batch
from engine.graphs import DecodeGraphs
from engine.kv_cache import KVCache
from engine.logprobs import token_logprobs
from engine.models.decoder import Decoder, Forward
from engine.pace import Pace, computed_at_once
from engine.sampler import Sampled, SampleRow, sample
from engine.scheduler import Scheduled
from engine.sequence import Sequence

_SCORED = 64
"""Rows of a prompt whose logits are held at a time: 39 MB at a vocabulary of 152,000."""


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
        self.add(sequence.token_ids, first, count, sequence.prompt_length, sequence.blocks)
        if sequence.needs_prompt_logits:
            for position in range(len(sequence.prompt_logprobs) - 1, min(stop, sequence.prompt_length - 1)):
                self.scored.append(offset + position)
                self.targets.append((sequence, sequence.token_ids[position + 1]))
        last = stop == len(sequence.token_ids)
        self.samples.append(_sample_row(sequence, stop) if last else None)
        if last:
            self.sampled.append(offset + stop - 1)


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
    def decode(self, scheduled: Scheduled) -> list[Sampled | None]:
        """Compute tokens of answers; per sequence its next token, None while others are to be computed
        before that."""
        batch = _Batch.of(scheduled)
        if self.graphs and not batch.scored and self.graphs.takes(batch):
            logits = self.graphs.logits(batch)
            if logits is not None:
                return _draw(batch, logits if len(batch.sampled) == len(logits) else logits[batch.sampled])
        return self._end(batch, batch.begin(self.decoder, self.kv.layers, self.device, generated=True))

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


def _sample_row(sequence: Sequence, position: int) -> SampleRow:
    return SampleRow(
        params=sequence.params,
        seed=sequence.seed,
        position=position,
        history=sequence.history,
        matcher=sequence.matcher,
        banned=sequence.banned,
    )
