"""Prompts' attention: the kernel that reads the cache where it lies, against torch's own for sequences of any
length, for which it is gathered first."""

from __future__ import annotations

import torch
from torch.nn.attention.varlen import varlen_attn

from engine.attention import AttentionSpec
from engine.attention.paged_prefill import prefill, row_tiles
from engine.blocks import BLOCK_SIZE, blocks_for
from tests.bench.gpu import card
from tests.bench.gpu.result import Result

DTYPE = torch.bfloat16
SHAPE = (32, 8, 128)
"""Heads, KV heads, head size."""
CHUNK, SEQUENCES, BEHIND = 512, 4, 4096
NEAR = 0.02


class Chunks:
    """The next ``CHUNK`` rows of some prompts, behind ``first`` others, in blocks that lie anywhere."""

    def __init__(self, first: int) -> None:
        heads, kv_heads, size = SHAPE
        self._context = first + CHUNK
        count = blocks_for(self._context)
        self._queries = torch.randn(SEQUENCES * CHUNK, heads, size, device=card.DEVICE, dtype=DTYPE)
        blocks = (2, SEQUENCES * count, BLOCK_SIZE, kv_heads, size)
        self._keys, self._values = torch.randn(blocks, device=card.DEVICE, dtype=DTYPE)
        self._tables = torch.randperm(SEQUENCES * count, device=card.DEVICE).view(SEQUENCES, count).int()
        tiles = row_tiles([(first, CHUNK)] * SEQUENCES)
        self._extents = torch.tensor(tiles, dtype=torch.int32, device=card.DEVICE)
        self._bounds = torch.arange(SEQUENCES + 1, device=card.DEVICE, dtype=torch.int32)

    def ours(self) -> torch.Tensor:
        out, spec = torch.empty_like(self._queries), AttentionSpec(SHAPE[2] ** -0.5)
        prefill(self._queries, (self._keys, self._values), self._tables, self._extents, spec, out)
        return out

    def torchs(self) -> torch.Tensor:
        keys, values = (cache[self._tables].flatten(1, 2) for cache in (self._keys, self._values))
        return varlen_attn(
            self._queries,
            keys[:, : self._context].flatten(0, 1),
            values[:, : self._context].flatten(0, 1),
            self._bounds * CHUNK,
            self._bounds * self._context,
            CHUNK,
            self._context,
            window_size=(-1, 0),
            enable_gqa=True,
        )


def measure(result: Result) -> None:
    torch.manual_seed(0)
    for first in (0, BEHIND):
        chunks = Chunks(first)
        near = torch.allclose(chunks.ours().float(), chunks.torchs().float(), atol=NEAR, rtol=NEAR)
        result.check(f"prompts_behind_{first}_as_torchs_varlen", near)
        rate = card.seconds(chunks.torchs) / card.seconds(chunks.ours)
        result.number(f"prompts_behind_{first}_over_torchs_varlen", rate)
