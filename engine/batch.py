"""The tokens of a pass, one sequence after the other, on their way to becoming tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from engine.models.decoder import Decoder, Forward, KVLayers


@dataclass(slots=True)
class Batch:
    token_ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    prompt_lengths: list[int] = field(default_factory=list)
    spans: list[tuple[int, int, Sequence[int]]] = field(default_factory=list)
    """Per sequence its first position, its number of rows, and its block table."""

    def add(self, tokens: Sequence[int], first: int, prompt_length: int, blocks: Sequence[int]) -> None:
        """A sequence's ``tokens`` from position ``first`` on."""
        count = len(tokens)
        self.token_ids += tokens
        self.positions += range(first, first + count)
        self.prompt_lengths += [prompt_length] * count
        self.spans.append((first, count, blocks))

    def begin(self, decoder: Decoder, kv: KVLayers, device: torch.device, *, generated: bool) -> Forward:
        """``generated``: the tokens are of answers, else of prompts."""
        return decoder.begin(
            torch.tensor(self.token_ids, device=device),
            torch.tensor(self.positions, device=device),
            torch.tensor(self.prompt_lengths, device=device),
            decoder.attention.plan(self.spans, generated=generated),
            kv,
        )
