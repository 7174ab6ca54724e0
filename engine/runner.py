"""One step as tensors: from the scheduled sequences to their next tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from engine.attention import make_plan
from engine.kv_cache import KVCache
from engine.models.decoder import Decoder
from engine.sampler import SampleRow, sample
from engine.scheduler import Scheduled


@dataclass(frozen=True, slots=True)
class Runner:
    decoder: Decoder
    kv: KVCache
    device: torch.device

    @torch.inference_mode()
    def step(self, scheduled: Scheduled) -> list[int | None]:
        """Compute the scheduled tokens; per sequence its next token, None while its prompt is unfinished."""
        tokens: list[int] = []
        positions: list[int] = []
        spans = []
        rows: list[int] = []
        samples: list[SampleRow] = []
        for sequence, count in scheduled:
            first, stop = sequence.computed, sequence.computed + count
            tokens += sequence.token_ids[first:stop]
            positions += range(first, stop)
            spans.append((first, count, sequence.blocks))
            if stop == len(sequence.token_ids):
                rows.append(len(tokens) - 1)
                samples.append(
                    SampleRow(sequence.params, sequence.seed, stop, sequence.banned, sequence.token_ids)
                )
        logits = self._forward(tokens, positions, spans, rows)
        drawn = iter(sample(logits, samples) if samples else ())
        result: list[int | None] = []
        for sequence, count in scheduled:
            sequence.computed += count
            result.append(next(drawn) if sequence.computed == len(sequence.token_ids) else None)
        return result

    def _forward(
        self,
        tokens: list[int],
        positions: list[int],
        spans: list[tuple[int, int, list[int]]],
        rows: list[int],
    ) -> torch.Tensor:
        """Logits of ``rows``, float32 [rows, vocabulary]."""
        return self.decoder.forward(
            torch.tensor(tokens, device=self.device),
            torch.tensor(positions, device=self.device),
            make_plan(spans, self.device),
            self.kv.layers,
            torch.tensor(rows, dtype=torch.int64, device=self.device),
        )
