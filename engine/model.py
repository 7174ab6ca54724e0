"""All of a model that survives sleep: layout, address ranges, views, rope table, scheduler, runner.

Made once, when the model is first needed; no weights are read for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from engine.checkpoint import Checkpoint
from engine.info import served_dtype, served_length
from engine.kv_cache import BLOCK_SIZE, KVCache, arena_bytes, blocks_for, blocks_within
from engine.memory.cpu import HUGE_PAGE
from engine.models.config import ModelConfig
from engine.models.decoder import Decoder, decoder_parameters
from engine.models.rope import rope_table
from engine.runner import Runner
from engine.scheduler import Scheduler
from engine.types import EngineOptions
from engine.weights import Layout, Weights

if TYPE_CHECKING:
    from engine.device import Device
    from engine.memory.arena import Arena

_PREFILL_CHUNK = 256


@dataclass(frozen=True, slots=True)
class Model:
    weights: Weights
    kv: KVCache
    scheduler: Scheduler
    runner: Runner
    residue: int
    """Bytes of buffers outside the arenas."""
    arenas: tuple[Arena, Arena]


def make_layout(checkpoint: Checkpoint, config: ModelConfig, options: EngineOptions) -> Layout:
    """Reads the headers of the checkpoint's files. Raises CheckpointError."""
    dtype = getattr(torch, served_dtype(config, options))
    return Layout(decoder_parameters(config), checkpoint.read_shards(), dtype)


def build_model(checkpoint: Checkpoint, config: ModelConfig, options: EngineOptions, device: Device) -> Model:
    """Raises CheckpointError."""
    layout = make_layout(checkpoint, config, options)
    length = served_length(config, options)
    weights_arena = device.make_arena(layout.nbytes)
    kv_arena, blocks = _reserve_kv(config, options, layout.dtype, length, device)
    shape = (config.num_layers, config.num_kv_heads, config.head_dim)
    kv = KVCache(kv_arena, shape, layout.dtype, blocks, device.caches)
    rope = rope_table(config.rope, config.head_dim, length, layout.dtype).to(device.torch_device)
    decoder = Decoder(config, layout.views(weights_arena.tensor), rope)
    return Model(
        weights=Weights(layout, weights_arena),
        kv=kv,
        scheduler=Scheduler(kv, options.max_running, _PREFILL_CHUNK),
        runner=Runner(decoder, kv, device.torch_device),
        residue=rope.nbytes,
        arenas=(weights_arena, kv_arena),
    )


def _reserve_kv(
    config: ModelConfig, options: EngineOptions, dtype: torch.dtype, length: int, device: Device
) -> tuple[Arena, int]:
    """Address space for the most that could be used, and how many blocks that is."""
    nbytes = config.kv_elements_per_token * dtype.itemsize * BLOCK_SIZE
    blocks = options.max_running * blocks_for(length)
    if options.kv_limit is not None:
        blocks = min(blocks, blocks_within(options.kv_limit, nbytes, HUGE_PAGE))
    return device.make_arena(arena_bytes(nbytes, max(1, blocks), HUGE_PAGE)), max(1, blocks)
