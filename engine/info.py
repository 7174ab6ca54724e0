"""What can be said of a checkpoint without reading its weights."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from engine.checkpoint import ITEM_SIZES, Checkpoint
from engine.hub import cached_directory, local_directory
from engine.kv_sizes import KVSizes
from engine.memory.sizes import HUGE_PAGE, PAGE, round_up
from engine.models.config import ModelConfig
from engine.models.encoder_config import ENCODERS, EncoderConfig
from engine.models.parameters import model_parameters
from engine.models.tensor_names import decoder_tensors
from engine.parameter import lay_out
from engine.sentence import SentenceConfig, dense_shards
from engine.tokenizer import Tokenizer
from engine.types import CheckpointError, EngineOptions, Estimate, ModelInfo

DTYPE_SIZES = {"bfloat16": 2, "float16": 2, "float32": 4}

_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


AnyConfig = ModelConfig | EncoderConfig


def read_config(checkpoint: Checkpoint) -> AnyConfig:
    """Of a model that embeds (an encoder, or a decoder with sentence-transformers files or without a head)
    ``sentence`` is set. Raises CheckpointError."""
    parser = EncoderConfig if _architectures(checkpoint) & ENCODERS.keys() else ModelConfig
    config: AnyConfig = parser.parse(checkpoint.config)
    sentence = SentenceConfig.read(checkpoint)
    if sentence is None and isinstance(config, EncoderConfig):
        sentence = SentenceConfig(modes=("mean",))
    elif sentence is None and config.architecture.endswith("Model"):
        sentence = SentenceConfig(modes=("lasttoken",))
    if sentence is None:
        return config
    length = min(config.max_position, sentence.max_tokens or config.max_position)
    return replace(config, sentence=sentence, max_position=length)


def _architectures(checkpoint: Checkpoint) -> set[str]:
    named = checkpoint.config.get("architectures")
    return {name for name in named if isinstance(name, str)} if isinstance(named, list) else set()


def served_dtype(config: AnyConfig, options: EngineOptions) -> str:
    dtype = config.dtype if options.dtype == "auto" else options.dtype
    if dtype not in DTYPE_SIZES:
        message = f"dtype {dtype!r} is not supported (known: {', '.join(DTYPE_SIZES)})"
        raise CheckpointError(message, reason=message)
    return dtype


def served_length(config: AnyConfig, options: EngineOptions) -> int:
    """Tokens of prompt and answer together."""
    wanted = options.max_model_len or config.max_position
    if wanted > config.max_position:
        message = f"max_model_len {wanted} is more than the model's {config.max_position} positions"
        raise CheckpointError(message, reason=message)
    return wanted


def length_of(path: str, options: EngineOptions) -> int | None:
    """See ``engine.max_model_len``."""
    directory = local_directory(path) or cached_directory(path, options.revision)
    return served_length(read_config(Checkpoint(directory)), options) if directory else None


def describe(
    checkpoint: Checkpoint, config: AnyConfig, tokenizer: Tokenizer, options: EngineOptions
) -> ModelInfo:
    return ModelInfo(
        kind="embed" if config.sentence else "generate",
        architecture=config.architecture,
        dtype=served_dtype(config, options),
        max_model_len=served_length(config, options),
        vocab_size=config.vocab_size,
        longest_token_bytes=tokenizer.longest_token_bytes(),
        chat_template=checkpoint.chat_template(),
        special_tokens=checkpoint.special_tokens(),
        sampling_defaults=sampling_defaults(checkpoint),
        embedding_size=config.sentence.size(config.hidden_size) if config.sentence else None,
        matryoshka=_matryoshka(checkpoint, config),
    )


def _matryoshka(checkpoint: Checkpoint, config: AnyConfig) -> bool:
    """Encoders say so themselves; of the decoders that embed, which are trained that way, none does."""
    said = checkpoint.config.get("is_matryoshka") or checkpoint.config.get("matryoshka_dimensions")
    return config.sentence is not None and (bool(said) or isinstance(config, ModelConfig))


def sampling_defaults(checkpoint: Checkpoint) -> dict[str, float]:
    """generation_config.json's; greedy where it says ``do_sample: false`` in so many words."""
    given = checkpoint.generation_config
    defaults = {name: given[name] for name in _SAMPLING if type(given.get(name)) in (int, float)}
    if defaults.get("repetition_penalty", 1) <= 0:
        del defaults["repetition_penalty"]
    if given.get("do_sample") is False:
        defaults["temperature"] = 0.0
    return defaults


def stop_token_ids(checkpoint: Checkpoint, tokenizer: Tokenizer, vocab_size: int) -> frozenset[int]:
    """Every end-of-sequence token: of generation_config.json, config.json and the tokenizer's own."""
    found: set[int] = set()
    for source in (checkpoint.generation_config, checkpoint.config):
        ids = source.get("eos_token_id")
        found.update(i for i in (ids if isinstance(ids, list) else [ids]) if isinstance(i, int))
    token = checkpoint.special_tokens().get("eos_token")
    eos = tokenizer.token_id(token) if token else None
    found |= {eos} if eos is not None else set()
    return frozenset(token for token in found if 0 <= token < vocab_size)


def estimate_checkpoint(path: str, options: EngineOptions, page: int = PAGE) -> Estimate | None:
    """See ``engine.estimate``. ``page``: the smallest piece of memory that the device has."""
    directory = local_directory(path) or cached_directory(path, options.revision)
    if directory is None:
        return None
    checkpoint = Checkpoint(directory)
    config = read_config(checkpoint)
    size = DTYPE_SIZES[served_dtype(config, options)]
    try:
        shards = checkpoint.read_shards()
        if isinstance(config, ModelConfig):
            shards = [decoder_tensors(shard, tied=config.tied_embeddings) for shard in shards]
        shards += dense_shards(checkpoint, config.sentence) if config.sentence else []
    except CheckpointError:
        if local_directory(path):
            raise
        return None  # a hub checkpoint of which only the small files are here
    elements = sum(
        math.prod(t.shape) for shard in shards for t in shard.tensors.values() if t.dtype in ITEM_SIZES
    )
    return Estimate(
        weights_bytes=elements * size,
        least_bytes=_least_bytes(config, size, page),
        kv_bytes_per_token=config.kv_elements_per_token * size,
        max_model_len=served_length(config, options),
        architecture=config.architecture,
    )


def weight_files(path: str, revision: str) -> list[Path]:
    """See ``engine.weight_files``."""
    directory = local_directory(path) or cached_directory(path, revision)
    if directory is None:
        return []
    try:
        return Checkpoint(directory).shard_paths()
    except CheckpointError:
        return []


def _least_bytes(config: AnyConfig, item_size: int, page: int) -> int:
    _, end = lay_out(model_parameters(config), item_size)
    weights = round_up(end, HUGE_PAGE if page == PAGE else page)
    if isinstance(config, EncoderConfig):
        return weights
    return weights + KVSizes(*config.kv_shape, item_size, page).chunk + config.kept_bytes
