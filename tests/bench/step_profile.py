"""Where the time of a step goes, and what this machine could do at best:
`python -m tests.bench.step_profile CHECKPOINT`.

A generated token reads every weight once, so it comes no faster than memory is read; rows of prompts and of
many streams are products, no faster than the CPU multiplies. Prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from engine.batch import Batch
from engine.blocks import blocks_for
from engine.checkpoint import Checkpoint
from engine.device import Device
from engine.info import read_config
from engine.linear import Linear
from engine.memory.cpu import CpuArena, tune_allocator
from engine.model import Model, build_model
from engine.models.config import ModelConfig
from engine.types import EngineOptions

KINDS = {
    "mkldnn::_linear_pointwise": "products",
    "aten::bmm": "products",
    "aten::bitwise_left_shift": "widening",
    "aten::bitwise_and": "widening",
    "aten::_scaled_dot_product_flash_attention_for_cpu": "attention",
    "aten::native_layer_norm": "norms",
}
ROUNDS = 15


def seconds(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """The median, after a first round."""
    work()
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        took.append(time.perf_counter() - began)
    return median(took)


def limits() -> dict[str, float]:
    """What the CPU does of each kind, GB/s and GFLOP/s."""
    many, matrix = torch.ones(300_000_000), torch.randn(6144, 1024)
    packed = Linear(matrix.bfloat16())
    packed.pack()
    x = torch.randn(512, 1024)
    flops = 2 * x.numel() * len(matrix)
    return {
        "read_gb_per_second": many.nbytes / seconds(many.sum) / 1e9,
        "bfloat16_gflops": flops / seconds(lambda: packed(x.bfloat16(), generated=True)) / 1e9,
        "float32_gflops": flops / seconds(lambda: x @ matrix.T) / 1e9,
    }


def load(directory: Path) -> Model:
    checkpoint = Checkpoint(directory)
    config = read_config(checkpoint)
    assert isinstance(config, ModelConfig)
    model = build_model(checkpoint, config, EngineOptions(max_model_len=2048), Device("cpu", CpuArena))
    model.weights.fill()
    while model.weights.pack_next():
        pass
    return model


def step(model: Model, sequences: int, first: int, count: int, *, generated: bool) -> Callable[[], object]:
    """A pass over tokens ``first`` to ``first + count`` of each sequence, and the logits of their last."""
    tokens, stop = sequences * count, first + count
    tables = [model.kv.allocate(blocks_for(stop)) for _ in range(sequences)]
    decoder = model.runner.decoder

    batch = Batch()
    for table in tables:
        batch.add([5] * stop, first, count, first if generated else stop, table)

    def run() -> None:
        forward = batch.begin(decoder, model.kv.layers, torch.device("cpu"), generated=generated)
        decoder.logits(decoder.hidden(forward, torch.arange(count - 1, tokens, count)))

    return run


def shares(run: Callable[[], object]) -> dict[str, float]:
    """Milliseconds of a step by kind of operation."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run()
    found: dict[str, float] = {}
    for event in profile.key_averages():
        kind = KINDS.get(event.key, "all else")
        found[kind] = found.get(kind, 0.0) + event.self_cpu_time_total / 1000
    return found


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    tune_allocator()
    result: dict[str, Any] = {"limits": limits()}
    model = load(arguments.checkpoint)
    result["weights_bytes"] = weights = model.weights.nbytes
    result["read_once_ms"] = weights / result["limits"]["read_gb_per_second"] / 1e6
    steps = {
        "1 generated token": step(model, 1, 160, 1, generated=True),
        "16 generated tokens": step(model, 16, 160, 1, generated=True),
        "a prompt of 128": step(model, 1, 0, 128, generated=False),
        "4 prompts of 128": step(model, 4, 0, 128, generated=False),
    }
    for name, run in steps.items():
        result[name] = {"milliseconds": seconds(run) * 1000, "of which": shares(run)}
    for name, value in result["limits"].items():
        print(f"{name:22} {value:8.1f}")
    print(f"{'all weights read once':22} {result['read_once_ms']:8.1f} ms")
    for name in steps:
        parts = ", ".join(f"{kind} {ms:.1f}" for kind, ms in result[name]["of which"].items())
        print(f"{name:22} {result[name]['milliseconds']:8.1f} ms: {parts}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
