"""What sleep frees and what waking costs, measured: `python -m tests.bench.sleep_wake CHECKPOINT`.

Prints a table and one JSON line. Level 2 is compared with a plain parallel preadv of the same files, by the
same number of threads, into a fresh private mapping with the same advice: alternating, medians, the first
round thrown away.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import engine
from engine import EngineOptions, GenerateRequest, SamplingParams
from engine.memory.cpu import CpuArena
from engine.memory.parallel import reader_threads

_PIECE = 16 * 2**20


def plain_read(files: list[Path]) -> float:
    """Seconds to read the files whole into a fresh mapping."""
    sizes = [file.stat().st_size for file in files]
    arena = CpuArena(sum(sizes))
    view = memoryview(arena.tensor.numpy().data)
    descriptors = [os.open(file, os.O_RDONLY) for file in files]
    pieces, start = [], 0
    for fd, size in zip(descriptors, sizes, strict=True):
        pieces += [(fd, at, start + at, min(_PIECE, size - at)) for at in range(0, size, _PIECE)]
        start += size

    def read(piece: tuple[int, int, int, int]) -> None:
        fd, offset, target, length = piece
        while length:
            count = os.preadv(fd, [view[target : target + length]], offset)
            offset, target, length = offset + count, target + count, length - count

    started = time.perf_counter()
    with ThreadPoolExecutor(reader_threads()) as pool:
        list(pool.map(read, pieces))
    seconds = time.perf_counter() - started
    for fd in descriptors:
        os.close(fd)
    arena.close()
    return seconds


def memory() -> tuple[int, int]:
    """This process's RssAnon + RssShmem, and the system's Shmem. Bytes."""

    def numbers(path: str) -> dict[str, int]:
        pairs = (line.split(":") for line in Path(path).read_text().splitlines())
        return {name: int(value.split()[0]) * 1024 for name, value in pairs if value.split()[-1:] == ["kB"]}

    status = numbers("/proc/self/status")
    return status["RssAnon"] + status["RssShmem"], numbers("/proc/meminfo")["Shmem"]


async def first_token(model: engine.Engine, tokens: int = 128) -> float:
    prompt = [random.randrange(1, 250) for _ in range(tokens)]
    request = GenerateRequest(prompt_ids=prompt, sampling=SamplingParams(max_tokens=1, temperature=0.0))
    started = time.perf_counter()
    async for _ in model.generate(request):
        return time.perf_counter() - started
    raise AssertionError("no token came")


async def measure(checkpoint: Path, files: list[Path], rounds: int, requests: int) -> dict[str, Any]:
    model = engine.open(str(checkpoint), "cpu", EngineOptions(max_model_len=2048))
    await model.wake()
    await first_token(model)
    weights = model.footprint().weights
    before, shmem_before = memory()
    await model.sleep(2)
    after, shmem_after = memory()
    reads, fills, drops, level1, wakes1 = [], [], [], [], []
    for _ in range(rounds + 1):
        reads.append(plain_read(files))
        fills.append((await model.wake()).seconds)
        await first_token(model)
        level1.append((await model.sleep(1)).seconds)
        wakes1.append((await model.wake()).seconds)
        await first_token(model)
        drops.append((await model.sleep(2)).seconds)
    await model.wake()
    awake, woken = [], {1: [], 2: []}
    for _ in range(requests):
        awake.append(await first_token(model))
        for level, seconds in woken.items():
            await model.sleep(1 if level == 1 else 2)
            await model.wake()
            seconds.append(await first_token(model))
    await model.close()
    return {
        "checkpoint_bytes": sum(file.stat().st_size for file in files),
        "weights_bytes": weights,
        "freed_share": (before - after) / weights,
        "shmem_grown": shmem_after - shmem_before,
        "threads": reader_threads(),
        "plain_read_seconds": median(reads[1:]),
        "wake_level2_seconds": median(fills[1:]),
        "wake_level2_over_plain_read": median(fills[1:]) / median(reads[1:]),
        "wake_level1_seconds": median(wakes1[1:]),
        "sleep_level1_seconds": median(level1[1:]),
        "sleep_level2_seconds": median(drops[1:]),
        "ttft_awake_seconds": median(awake),
        "ttft_after_level1_over_awake": median(woken[1]) / median(awake),
        "ttft_after_level2_over_awake": median(woken[2]) / median(awake),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--requests", type=int, default=20)
    arguments = parser.parse_args()
    files = sorted(arguments.checkpoint.glob("*.safetensors"))
    result = asyncio.run(measure(arguments.checkpoint, files, arguments.rounds, arguments.requests))
    for name, value in result.items():
        print(f"{name:32} {value:.4f}" if isinstance(value, float) else f"{name:32} {value}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
