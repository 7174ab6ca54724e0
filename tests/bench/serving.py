"""Our server beside its peers, the same checkpoint and prompts, in one run, taking turns:
`python -m tests.bench.serving CHECKPOINT [--peer NAME=URL ...]`.

``transformers`` is always measured. vLLM, llama.cpp's server or any other that speaks OpenAI's API joins by
its address, e.g. `--peer llama.cpp=http://127.0.0.1:8081`. Prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import torch

from tests.bench.streams import Stream, crowd, random_prompt, summary
from tests.bench.transformers_peer import transformers_peer
from tests.e2e.server import Server, running

Prompts = Sequence[Sequence[int]]
Run = Callable[[Prompts, int], list[Stream]]

OURS = "dormouse"
SETTLE = 3.0
"""Seconds between two runs: servers tidy up after their last request."""
REFERENCE = "transformers"
UNITS = {"tokens_per_second": "tok/s", "first_token_seconds": "first token", "decode_seconds": "a token"}


def over_http(url: str, model: str) -> Run:
    return lambda prompts, tokens: asyncio.run(crowd(url, model, prompts, tokens))


def config_of(checkpoint: Path, length: int = 4096) -> str:
    return f'[sleep]\nidle_timeout = "never"\n[models.m]\npath = "{checkpoint}"\nmax_model_len = {length}\n'


def wait_packed(server: Server, model: str = "m", share: float = 0.9) -> float:
    """Wake the model; seconds from then until most weights are laid out for the CPU's matmul."""
    httpx.post(f"{server.url}/wake_up", params={"model": model}, timeout=600).raise_for_status()

    def packed() -> bool:
        status = server.status(model)
        return bool(status["packed_bytes"] >= share * status["weights_bytes"])

    return server.wait_until(packed, "not packed", seconds=120)


def measure(runs: dict[str, Run], clients: int, rounds: int, length: int, tokens: int) -> dict[str, Any]:
    """By peer the medians over the rounds, the first of which is thrown away if there are several."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in runs}
    for number in range(rounds):
        prompts = [random_prompt(length, f"{clients} {number} {index}") for index in range(clients)]
        for name, run in runs.items():
            time.sleep(SETTLE)
            found[name].append(summary(run(prompts, tokens), tokens))
    kept = {name: results[1:] or results for name, results in found.items()}
    return {
        name: {unit: median(result[unit] for result in results) for unit in UNITS}
        for name, results in kept.items()
    }


def table(results: dict[int, dict[str, Any]]) -> str:
    lines = [f"{'clients':>7}  {'':14}" + "".join(f"{unit:>14}" for unit in UNITS.values()) + f"{'ratio':>8}"]
    for clients, peers in results.items():
        reference = peers[REFERENCE]["tokens_per_second"]
        for name, of in peers.items():
            cells = f"{of['tokens_per_second']:14.1f}{of['first_token_seconds']:12.2f} s"
            cells += f"{of['decode_seconds'] * 1000:11.1f} ms{of['tokens_per_second'] / reference:8.2f}"
            lines.append(f"{clients:7}  {name:14}{cells}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=URL")
    arguments = parser.parse_args()
    threads = len(os.sched_getaffinity(0))
    peers = dict(peer.split("=", 1) for peer in arguments.peer)
    with (
        tempfile.TemporaryDirectory() as directory,
        transformers_peer(arguments.checkpoint, threads) as plain,
        running(Path(directory), config_of(arguments.checkpoint)) as server,
    ):
        runs: dict[str, Run] = {OURS: over_http(server.url, "m"), REFERENCE: plain.generate}
        just_woken = summary(runs[OURS]([random_prompt(arguments.prompt, "first")], 32), 32)
        httpx.post(f"{server.url}/sleep?level=2&model=m").raise_for_status()
        until_packed = wait_packed(server)
        for name, url in peers.items():
            served = httpx.get(f"{url}/v1/models").json()["data"][0]["id"]
            runs[name] = over_http(url, served)
        results = {}
        for clients in arguments.clients:
            results[clients] = measure(runs, clients, arguments.rounds, arguments.prompt, arguments.tokens)
            print(table({clients: results[clients]}), flush=True)
    record = {
        "prompt_tokens": arguments.prompt,
        "new_tokens": arguments.tokens,
        "threads": threads,
        "torch": torch.__version__,
        "seconds_until_packed": until_packed,
        "decode_seconds_until_packed": just_woken["decode_seconds"],
        "clients": results,
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
