"""Two models that take turns against each of them undisturbed: `python -m tests.bench.suspension A B`.

A and B are checkpoints of which only one fits with the KV of both, or without it. Clients of both stream at
once; each model answers for a turn, is suspended at the end of a step, and goes on in its next turn. What
that costs is told as a ratio to the same streams with the other model asleep, in one run. Prints a table and
one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from engine import estimate
from tests.bench.streams import Stream, crowd, random_prompt
from tests.e2e.server import Server, running

MODELS = ("a", "b")
PROMPT = 256
ROOM = {"parked": 2.3, "recomputed": 1.3}
"""Beside the weights of one model: how often the KV of its streams fits. With twice, both may keep theirs."""


def config(paths: Sequence[Path], turn: str, limit: int) -> str:
    models = "".join(
        f'[models.{name}]\npath = "{path}"\nmax_model_len = 4096\nprefix_cache = false\n'
        for name, path in zip(MODELS, paths, strict=True)
    )
    return f"""
[sleep]
idle_timeout = "never"
[memory]
device_limit = "{limit // 2**20}MiB"
[queue]
turn = "{turn}"
min_awake = "100ms"
max_wait = "10m"
{models}"""


def run(server: Server, models: Sequence[str], clients: int, tokens: int) -> tuple[float, list[Stream]]:
    """Seconds until all of these streams are over, and the streams."""

    async def all_of() -> list[Stream]:
        prompts = [random_prompt(PROMPT, number) for number in range(clients)]
        crowds = [crowd(server.url, name, prompts, tokens) for name in models]
        return [one for streams in await asyncio.gather(*crowds) for one in streams]

    streams = asyncio.run(all_of())
    return max(s.came[-1] for s in streams) - min(s.asked for s in streams), streams


def measure(paths: Sequence[Path], turn: str, limit: int, clients: int, tokens: int) -> dict[str, float]:
    with (
        tempfile.TemporaryDirectory() as directory,
        running(Path(directory), config(paths, turn, limit)) as server,
    ):
        for name in MODELS:
            run(server, [name], 1, 8)
        alone = [run(server, [name], clients, tokens) for name in MODELS]
        seconds, together = run(server, MODELS, clients, tokens)
        log = server.log.read_text()
    undisturbed = [stream for _, streams in alone for stream in streams]
    pairs = list(zip(undisturbed, together, strict=True))
    return {
        "seconds_alone": sum(alone_seconds for alone_seconds, _ in alone),
        "seconds_by_turns": seconds,
        "by_turns_over_alone": seconds / sum(alone_seconds for alone_seconds, _ in alone),
        "suspensions": len(re.findall(r"draining -> asleep level \d \(turn", log)),
        "longest_pause": max(max(stream.gaps) for stream in together),
        "longest_first_token": max(stream.first for stream in together),
        "same_answers": sum(one.text == other.text for one, other in pairs) / len(pairs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("a", type=Path)
    parser.add_argument("b", type=Path)
    parser.add_argument("--clients", type=int, default=4, help="of each model")
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--turn", default="10s")
    arguments = parser.parse_args()
    paths = (arguments.a, arguments.b)
    found = [estimate(str(path)) for path in paths]
    weights = max(one.weights_bytes for one in found if one)
    need = max(one.kv_bytes_per_token for one in found if one) * (PROMPT + arguments.tokens + 32)
    results = {
        kind: measure(
            paths,
            arguments.turn,
            weights + int(times * arguments.clients * need),
            arguments.clients,
            arguments.tokens,
        )
        for kind, times in ROOM.items()
    }
    print(f"{'':22}" + "".join(f"{kind:>12}" for kind in results))
    for name in results["parked"]:
        print(f"{name:22}" + "".join(f"{result[name]:12.3f}" for result in results.values()))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
