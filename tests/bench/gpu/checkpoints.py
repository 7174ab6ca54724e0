"""Checkpoints of random weights, drawn on the GPU and written in one piece a file: 16 GB in seconds."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from engine.models.config import ModelConfig
from engine.models.parameters import decoder_parameters
from tests.bench.gpu.parts import SHARED
from tests.bench.random_checkpoint import SHAPES, write_small_files

_SHARD = 2**30
_WRITERS = 4
_ITEM = 2
Named = list[tuple[str, tuple[int, ...]]]


def checkpoint(
    work: Path, shape: str, device: torch.device, *, seed: int = 0, disk: bool = False, **overrides: Any
) -> Path:
    """Where one of this shape lies, which is written if it is not there. ``disk``: not in memory, where it
    goes if there is room."""
    name = "-".join([shape, str(seed), *(f"{key}-{value}" for key, value in overrides.items())])
    places = [work / name] if disk or not SHARED.is_dir() else [SHARED / work.name / name, work / name]
    for place in places:
        if place.exists():
            return place
    need = sum(size * _ITEM for size in map(_count, _tensors(parsed({**SHAPES[shape], **overrides}))))
    place = next((one for one in places if _room(one) > need + 2**30), places[-1])
    unfinished = place.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    config = write_small_files(unfinished, shape, **overrides)
    _write_weights(unfinished, parsed(config), torch.Generator(device).manual_seed(seed))
    return unfinished.rename(place)


def parsed(config: dict[str, Any]) -> ModelConfig:
    """Of Qwen3's family."""
    return ModelConfig.parse(
        {
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-6,
            **config,
        }
    )


def _room(place: Path) -> int:
    parent = next(one for one in place.parents if one.exists())
    return shutil.disk_usage(parent).free if os.access(parent, os.W_OK) else 0


def _tensors(config: ModelConfig) -> Named:
    return [
        (name, tuple(dims)) for parameter in decoder_parameters(config) for name, dims in parameter.sources
    ]


def _count(tensor: tuple[str, tuple[int, ...]]) -> int:
    return math.prod(tensor[1])


def _write_weights(directory: Path, config: ModelConfig, generator: torch.Generator) -> None:
    shards = list(_cut(_tensors(config)))
    weight_map: dict[str, str] = {}
    written: list[Future[None]] = []
    with ThreadPoolExecutor(_WRITERS) as pool:
        for number, tensors in enumerate(shards, 1):
            name = f"model-{number:05}-of-{len(shards):05}.safetensors"
            weight_map |= {tensor: name for tensor, _ in tensors}
            if number > _WRITERS:
                written[number - 1 - _WRITERS].result()  # so many in RAM at most
            written.append(pool.submit(_write, directory / name, tensors, _draw(tensors, generator)))
    for one in written:
        one.result()
    total = sum(map(_count, _tensors(config))) * _ITEM
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


def _cut(tensors: Named) -> Iterator[Named]:
    """Into files of about a gigabyte."""
    shard: Named = []
    for tensor in tensors:
        shard.append(tensor)
        if sum(map(_count, shard)) * _ITEM >= _SHARD:
            yield shard
            shard = []
    if shard:
        yield shard


def _draw(tensors: Named, generator: torch.Generator) -> torch.Tensor:
    """bfloat16, one behind the other, in RAM. Norms are around one and matrices small, so that activations
    stay finite through many layers."""
    whole = torch.empty(sum(map(_count, tensors)), dtype=torch.bfloat16, device=generator.device)
    start = 0
    for tensor in tensors:
        mean = 1.0 if len(tensor[1]) == 1 else 0.0
        whole[start : start + _count(tensor)].normal_(mean, 0.03, generator=generator)
        start += _count(tensor)
    return whole.cpu()


def _write(path: Path, tensors: Named, values: torch.Tensor) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for tensor in tensors:
        name, shape = tensor
        end = start + _count(tensor) * _ITEM
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
        start = end
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        file.write(values.view(torch.uint8).numpy().data)
