"""A decoder run by hand: its chunks and batches are what the test says, its tokens are given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from engine.batch import Batch
from engine.blocks import BLOCK_SIZE, blocks_for
from engine.checkpoint import Checkpoint
from engine.model import make_layout
from engine.models.config import ModelConfig
from engine.models.decoder import Decoder
from engine.reader import Reader
from engine.types import DType, EngineOptions


@dataclass(frozen=True)
class Text:
    """A sequence whose tokens after the prompt are decoded one a step."""

    token_ids: list[int]
    prompt_length: int


@torch.inference_mode()
def forward(
    directory: Path, texts: list[Text], chunk: int, dtype: DType = "auto", *, hidden: bool = False
) -> list[torch.Tensor]:
    """The logits, or what the head would see, at every position of every text: [tokens, vocabulary] or
    [tokens, hidden size] each. Every step has the next ``chunk`` tokens of each prompt that is not through,
    and the next token of the other texts."""
    checkpoint, cpu = Checkpoint(directory), torch.device("cpu")
    config = ModelConfig.parse(checkpoint.config)
    layout = make_layout(checkpoint, config, EngineOptions(dtype=dtype))
    memory = torch.empty(layout.nbytes, dtype=torch.uint8)
    Reader(memory).read(layout.shards, layout.slices, layout.dtype)
    decoder = Decoder(config, layout.views(memory), cpu)
    tables, kv = _blocks(config, texts, layout.dtype)
    done = [0] * len(texts)
    found: list[list[torch.Tensor]] = [[] for _ in texts]
    while pending := [i for i, text in enumerate(texts) if done[i] < len(text.token_ids)]:
        for generated in (True, False):
            chosen = [i for i in pending if (done[i] >= texts[i].prompt_length) == generated]
            if not chosen:
                continue
            stops = {i: _next_stop(texts[i], done[i], chunk) for i in chosen}
            batch = Batch()
            for i in chosen:
                count = stops[i] - done[i]
                batch.add(
                    texts[i].token_ids[done[i] : done[i] + count], done[i], texts[i].prompt_length, tables[i]
                )
            forward = batch.begin(decoder, kv, cpu, generated=generated)
            states = decoder.hidden(forward, torch.arange(len(batch.token_ids)))
            parts = (states if hidden else decoder.logits(states)).split([stops[i] - done[i] for i in chosen])
            for i, part in zip(chosen, parts, strict=True):
                found[i].append(part.clone())
            pending = [i for i in pending if i not in stops]
            done = [stops.get(i, stop) for i, stop in enumerate(done)]
    return [torch.cat(parts) for parts in found]


def _next_stop(text: Text, done: int, chunk: int) -> int:
    return min(done + chunk, text.prompt_length) if done < text.prompt_length else done + 1


def _blocks(
    config: ModelConfig, texts: list[Text], dtype: torch.dtype
) -> tuple[list[list[int]], list[tuple[torch.Tensor, torch.Tensor]]]:
    """Block tables, the first text's in a row and the others' interleaved, and a cache that holds junk."""
    counts = [blocks_for(len(text.token_ids)) for text in texts]
    others, first = len(texts) - 1, counts[0]
    tables = [list(range(first))]
    tables += [[first + others * block + i for block in range(counts[i + 1])] for i in range(others)]
    shape = (first + others * max(counts), BLOCK_SIZE, config.num_kv_heads, config.head_dim)
    layers = range(config.num_layers)
    return tables, [(torch.full(shape, 9, dtype=dtype), torch.full(shape, 9, dtype=dtype)) for _ in layers]
