"""All of a model that survives sleep: layout, address ranges, views, scheduler, runner.

Made once, when the model is first needed; no weights are read for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from engine.blocks import blocks_for
from engine.checkpoint import Checkpoint
from engine.chunk import StepBudget
from engine.graphs import DecodeGraphs
from engine.info import AnyConfig, served_dtype, served_length
from engine.kv_cache import KVCache
from engine.kv_memory import KVMemory
from engine.memory.system import system
from engine.models.config import ModelConfig
from engine.models.decoder import Decoder
from engine.models.encoder_config import EncoderConfig
from engine.models.encoder_parameters import canonical
from engine.models.parameters import model_parameters
from engine.models.tensor_names import decoder_tensors
from engine.runner import Runner
from engine.scheduler import Scheduler
from engine.sentence import dense_shards
from engine.types import EngineOptions
from engine.weights import Layout, Weights

if TYPE_CHECKING:
    from engine.device import Device
    from engine.memory.arena import Arena

QUIET_SHARE = 8
"""One part in so many of what the device may hold may be KV that is kept only in case a prompt begins with
it, while nothing runs."""


@dataclass(frozen=True, slots=True)
class Model:
    weights: Weights
    kv: KVCache
    scheduler: Scheduler
    runner: Runner
    buffers: int
    """Bytes outside the arenas."""
    arenas: tuple[Arena, Arena]

    @property
    def residue(self) -> int:
        """Bytes of the device that stay through any sleep: buffers, graphs."""
        return self.buffers + (self.runner.graphs.nbytes if self.runner.graphs else 0)


def make_layout(checkpoint: Checkpoint, config: AnyConfig, options: EngineOptions) -> Layout:
    """Reads the headers of the checkpoint's files. Raises CheckpointError."""
    shards = checkpoint.read_shards()
    if isinstance(config, EncoderConfig):
        shards = [canonical(shard) for shard in shards]
    else:
        shards = [decoder_tensors(shard, tied=config.tied_embeddings) for shard in shards]
    if config.sentence:
        shards += dense_shards(checkpoint, config.sentence)
    return Layout(model_parameters(config), shards, getattr(torch, served_dtype(config, options)))


def build_model(checkpoint: Checkpoint, config: ModelConfig, options: EngineOptions, device: Device) -> Model:
    """Raises CheckpointError."""
    layout = make_layout(checkpoint, config, options)
    length = served_length(config, options)
    weights_arena = device.make_arena(layout.nbytes)
    blocks = options.max_running * blocks_for(length)
    memory = KVMemory(
        device.make_arena, config.kv_shape, layout.dtype, blocks, options.kv_limit, page=device.page
    )
    caching = options.prefix_cache
    kv = KVCache(memory, device.caches, caching=caching, quiet_limit=_quiet_limit(device))
    decoder = Decoder(config, layout.views(weights_arena.tensor), device.torch_device)
    graphs = None
    if device.graphs and decoder.steady and not config.sentence:
        shape = (options.max_running, blocks_for(length))
        graphs = DecodeGraphs(decoder, kv.layers, shape, device.torch_device, device.graphs)
    store = device.make_store(weights_arena, copy_early=options.copy_early)
    return Model(
        weights=Weights(layout, weights_arena, decoder.linears, store),
        kv=kv,
        scheduler=Scheduler(kv, options.max_running, StepBudget(), config.prompt_variant),
        runner=Runner(decoder, kv, device.torch_device, graphs, device.pace),
        buffers=config.kept_bytes,
        arenas=(weights_arena, memory.arena),
    )


def _quiet_limit(device: Device) -> int:
    """Bytes."""
    limit = device.budget.limit
    return (system.state().total if limit is None else limit) // QUIET_SHARE
