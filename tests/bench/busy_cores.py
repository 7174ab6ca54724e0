"""What another process that keeps one core busy costs: `python -m tests.bench.busy_cores CHECKPOINT`.

Tokens a second of one stream, in processes by turns: as Dormouse sets OpenMP's waiting, and as libgomp has it
by itself; on the machine as it is, and with a process that computes beside it. Prints a table and one JSON
line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Final

import engine
from engine import EngineOptions, GenerateRequest, SamplingParams

PROMPT: Final = list(range(5, 40))
SPINNING: Final = {"GOMP_SPINCOUNT": "300000"}
"""libgomp's own."""
WAITS: Final[dict[str, dict[str, str]]] = {"as Dormouse sets it": {}, "spinning": SPINNING}


async def tokens_per_second(checkpoint: str, tokens: int) -> float:
    made = engine.open(checkpoint, options=EngineOptions(max_running=1))
    await made.load()
    await made.wake()

    async def generate(count: int) -> float:
        sampling = SamplingParams(max_tokens=count, temperature=0, ignore_eos=True)
        began = time.perf_counter()
        async for _ in made.generate(GenerateRequest(prompt_ids=PROMPT, sampling=sampling)):
            pass
        return time.perf_counter() - began

    await generate(4)
    seconds = await generate(tokens)
    await made.close()
    return tokens / seconds


def in_process(checkpoint: str, tokens: int, environment: dict[str, str]) -> float:
    command = [sys.executable, "-m", "tests.bench.busy_cores", checkpoint, "--tokens", str(tokens), "--one"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    done = subprocess.run(command, env=kept | environment, check=True, capture_output=True, text=True)
    return float(done.stdout)


@contextmanager
def one_core_busy() -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        try:
            yield
        finally:
            other.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", action="store_true", help="here and once")
    options = parser.parse_args()
    if options.one:
        print(asyncio.run(tokens_per_second(str(options.checkpoint), options.tokens)))
        return
    found: dict[str, dict[str, list[float]]] = {name: {"quiet": [], "busy": []} for name in WAITS}
    for _ in range(options.rounds):
        for name, environment in WAITS.items():
            measured = (str(options.checkpoint), options.tokens, environment)
            found[name]["quiet"].append(in_process(*measured))
            with one_core_busy():
                found[name]["busy"].append(in_process(*measured))
    rates = {name: {load: median(each) for load, each in loads.items()} for name, loads in found.items()}
    print(f"tokens a second, {len(os.sched_getaffinity(0))} cores, median of {options.rounds}: quiet, busy")
    for name, loads in rates.items():
        print(f"{name:20} {loads['quiet']:6.2f} {loads['busy']:6.2f}")
    print(json.dumps(rates))


if __name__ == "__main__":
    main()
