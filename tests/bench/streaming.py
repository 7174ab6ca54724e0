"""What HTTP adds to a streamed token: `python -m tests.bench.streaming [CHECKPOINT]`.

CPU seconds of the server for many streams at once, less those of the same engine with the same prompts in a
process without HTTP in front, both in this one run. The load comes from a raw client in a process of its own,
which counts what arrives and parses nothing. Prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import resource
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import uvloop

import engine
from engine import EngineOptions, GenerateRequest, SamplingParams
from tests.bench.random_checkpoint import write_checkpoint
from tests.e2e.server import Server, running

SMALL = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "vocab_size": 4096}
"""So that steps are short and what is around them shows."""
PROMPT = list(range(300, 316))


def cpu_seconds(pid: int) -> float:
    """Of the process so far, all threads, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def own_cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def _generate(checkpoint: str, clients: int, tokens: int, rounds: int) -> list[float]:
    made = engine.open(checkpoint, options=EngineOptions(max_running=clients))
    await made.load()
    await made.wake()
    sampling = SamplingParams(max_tokens=tokens, temperature=1.0, ignore_eos=True)

    async def one(seed: int) -> None:
        async for _ in made.generate(GenerateRequest(prompt_ids=[*PROMPT, 320 + seed], sampling=sampling)):
            pass

    spent = []
    for _ in range(rounds + 1):
        before = own_cpu_seconds()
        await asyncio.gather(*(one(seed) for seed in range(clients)))
        spent.append(own_cpu_seconds() - before)
    await made.close()
    return spent[1:]


async def _load(port: int, clients: int, tokens: int) -> None:
    async def one(seed: int) -> None:
        body = {
            "model": "m",
            "prompt": [*PROMPT, 320 + seed],
            "max_tokens": tokens,
            "temperature": 1,
            "ignore_eos": True,
            "stream": True,
        }
        content = json.dumps(body).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-length: {len(content)}"
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"{head}\r\nconnection: close\r\n\r\n".encode() + content)
        answer = await reader.read(-1)
        writer.close()
        assert answer.startswith(b"HTTP/1.1 200") and b"[DONE]" in answer, answer[:300]

    await asyncio.gather(*(one(seed) for seed in range(clients)))


def in_process(work: Callable[..., Any], *args: Any) -> Any:
    """``work`` in a new process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_run, (work, args))


def _run(work: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    return uvloop.new_event_loop().run_until_complete(work(*args))


def serve(server: Server, clients: int, tokens: int, rounds: int) -> list[float]:
    assert server.process
    spent = []
    for _ in range(rounds + 1):
        before = cpu_seconds(server.process.pid)
        in_process(_load, server.port, clients, tokens)
        spent.append(cpu_seconds(server.process.pid) - before)
    return spent[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", nargs="?")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # threads that wait for each other would count as CPU time
    with tempfile.TemporaryDirectory() as directory:
        checkpoint = options.checkpoint or str(write_checkpoint(Path(directory) / "m", "60m", **SMALL))
        alone = in_process(_generate, checkpoint, options.clients, options.tokens, options.rounds)
        config = f'[models.m]\npath = "{checkpoint}"\nmax_running = {options.clients}\n'
        with running(Path(directory), config) as server:
            served = serve(server, options.clients, options.tokens, options.rounds)
    count = options.clients * options.tokens
    engine_us, server_us = (median(spent) / count * 1e6 for spent in (alone, served))
    print(f"{options.clients} clients, {options.tokens} tokens each, median of {options.rounds} rounds")
    print(f"engine alone    {engine_us:7.1f} us of CPU a token")
    print(f"server          {server_us:7.1f}")
    print(f"HTTP adds       {server_us - engine_us:7.1f}")
    print(json.dumps({"engine_us": engine_us, "server_us": server_us, "added_us": server_us - engine_us}))


if __name__ == "__main__":
    main()
