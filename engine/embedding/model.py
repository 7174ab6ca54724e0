"""All of an embedding model that survives sleep: address ranges, views, and the body that computes.

Made once, when the model is first needed; no weights are read for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.checkpoint import Checkpoint
from engine.embedding.body import Body, DecoderBody, EncoderBody
from engine.info import AnyConfig
from engine.kv_cache import KVCache
from engine.model import build_model, make_layout
from engine.models.encoder import Encoder
from engine.models.encoder_config import EncoderConfig
from engine.models.pooling import Pooling
from engine.types import EngineOptions
from engine.weights import Weights

if TYPE_CHECKING:
    from engine.device import Device
    from engine.memory.arena import Arena


class NoKV:
    """The KV cache of a model that needs none."""

    committed = kept = to_reserve = 0

    def reserve(self) -> None:
        """Nothing to hold."""

    def trim(self) -> int:
        return 0

    def forget_prefixes(self) -> None:
        """There are none."""

    def park(self, least: int, give_up: Callable[[], bool]) -> None:
        """Nothing to keep."""

    def unpark(self) -> None:
        """Nothing was kept."""

    def leave(self) -> None:
        """Nothing to give back."""


@dataclass(frozen=True, slots=True)
class EmbeddingModel:
    weights: Weights
    kv: KVCache | NoKV
    body: Body
    pooling: Pooling
    residue: int
    """Bytes of buffers outside the arenas."""
    arenas: tuple[Arena, ...]


def build_embedding_model(
    checkpoint: Checkpoint, config: AnyConfig, options: EngineOptions, device: Device
) -> EmbeddingModel:
    """Of a config whose ``sentence`` is set. Raises CheckpointError."""
    sentence = config.sentence
    assert sentence is not None
    if not isinstance(config, EncoderConfig):
        model = build_model(checkpoint, config, options, device)
        body = DecoderBody(model.runner.decoder, model.kv, device.torch_device)
        pooling = Pooling(sentence, model.weights.views())
        return EmbeddingModel(model.weights, model.kv, body, pooling, model.residue, model.arenas)
    layout = make_layout(checkpoint, config, options)
    arena = device.make_arena(layout.nbytes)
    encoder = Encoder(config, layout.views(arena.tensor))
    store = device.make_store(arena, copy_early=options.copy_early)
    weights = Weights(layout, arena, encoder.linears, store)
    pooling = Pooling(sentence, weights.views())
    return EmbeddingModel(weights, NoKV(), EncoderBody(encoder), pooling, 0, (arena,))
