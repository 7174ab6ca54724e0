"""What makes hidden states of tokens, step by step: an encoder, or a decoder over the KV cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from engine.batch import Batch
from engine.blocks import blocks_for
from engine.embedding.request import Input
from engine.kv_cache import KVCache
from engine.models.decoder import Decoder
from engine.models.encoder import Encoder

STEP_TOKENS = 512
"""Of a step, but for an encoder's input that is longer: it cannot be cut."""


class Body(Protocol):
    """What makes hidden states of tokens."""

    @property
    def memory_will_come(self) -> bool:
        """Whether memory that was not there is in use elsewhere and will be given back."""

    def next_count(self, work: Input) -> int:
        """Tokens of the input's next step."""

    def reserve(self, work: Input) -> None:
        """Memory for the whole input. Raises OutOfMemory, having taken none."""

    def hidden(self, works: Sequence[tuple[Input, int]]) -> list[torch.Tensor]:
        """Hidden states of so many next tokens of each."""

    def release(self, work: Input) -> None: ...

    def rest(self) -> None:
        """There is no more work."""


@dataclass(frozen=True, slots=True)
class EncoderBody:
    """Takes inputs whole, and holds no memory between steps."""

    encoder: Encoder
    memory_will_come = False

    def next_count(self, work: Input) -> int:
        return len(work.ids)

    def reserve(self, work: Input) -> None:
        """Nothing to hold."""

    def hidden(self, works: Sequence[tuple[Input, int]]) -> list[torch.Tensor]:
        return self.encoder.hidden([work.ids for work, _ in works])

    def release(self, work: Input) -> None:
        """Nothing held."""

    def rest(self) -> None:
        """Nothing held."""


@dataclass(frozen=True, slots=True)
class DecoderBody:
    """Takes inputs in chunks, whose keys and values are in the KV cache until the input is done. Chunks end
    at fixed positions, whatever else is in the step."""

    decoder: Decoder
    kv: KVCache
    device: torch.device

    @property
    def memory_will_come(self) -> bool:
        return self.kv.waits_for_siblings

    def next_count(self, work: Input) -> int:
        return min(len(work.ids) - work.computed, STEP_TOKENS)

    def reserve(self, work: Input) -> None:
        if not work.blocks:
            work.blocks = self.kv.allocate(blocks_for(len(work.ids)))

    def hidden(self, works: Sequence[tuple[Input, int]]) -> list[torch.Tensor]:
        batch = Batch()
        for work, count in works:
            batch.add(
                work.ids[work.computed : work.computed + count], work.computed, len(work.ids), work.blocks
            )
        forward = batch.begin(self.decoder, self.kv.layers, self.device, generated=False)
        states = self.decoder.hidden(forward, torch.arange(len(batch.token_ids), device=self.device))
        return list(torch.split(states, [count for _, count in works]))

    def release(self, work: Input) -> None:
        self.kv.pool.release(work.blocks)
        work.blocks = ()

    def rest(self) -> None:
        self.kv.settle()
