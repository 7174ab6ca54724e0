"""How requests share a step, measured: `python -m tests.bench.batching CHECKPOINT`.

Long prompts against short ones, a cached prefix, a long prompt that arrives while streams run, two awake
models under load. All are ratios within this one run. Prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import httpx

from tests.bench.serving import config_of, wait_packed
from tests.bench.streams import Stream, crowd, random_prompt, stream, summary
from tests.e2e.server import running

SHORT, LONG, PREFIX = 128, 1024, 900


def first_tokens(url: str, prompts: Sequence[Sequence[int]]) -> float:
    """Median seconds to the first token of these, one after the other."""
    return median(asyncio.run(crowd(url, "m", [prompt], 1))[0].first for prompt in prompts)


def long_prompts(url: str, rounds: int) -> dict[str, float]:
    short, long = (
        first_tokens(url, [random_prompt(length, f"{length} {index}") for index in range(rounds)])
        for length in (SHORT, LONG)
    )
    return {"first_token_128": short, "first_token_1024": long, "long_over_short": long / short}


def cached_prefix(url: str, rounds: int) -> dict[str, float]:
    fresh, cached = [], []
    for index in range(rounds):
        prefix = random_prompt(PREFIX, f"prefix {index}")
        for into in (fresh, cached):
            prompt = prefix + random_prompt(30, f"{index} {len(cached)} {len(fresh)}")
            (answer,) = asyncio.run(crowd(url, "m", [prompt], 1))
            into.append(answer.first)
        assert answer.cached_tokens >= PREFIX // 16 * 16, answer.cached_tokens
    return {
        "first_token_930": median(fresh),
        "first_token_900_cached": median(cached),
        "cached_over_fresh": median(cached) / median(fresh),
    }


async def _interrupted(url: str, seed: int, tokens: int) -> tuple[list[Stream], Stream]:
    async with httpx.AsyncClient(base_url=url, timeout=600) as client:
        prompts = [random_prompt(SHORT, f"{seed} stream {index}") for index in range(8)]
        begun = [asyncio.Event() for _ in prompts]
        running = [
            asyncio.create_task(stream(client, "m", prompt, tokens, event))
            for prompt, event in zip(prompts, begun, strict=True)
        ]
        await asyncio.gather(*(event.wait() for event in begun))
        await asyncio.sleep(4)
        long = await stream(client, "m", random_prompt(LONG, f"{seed} long"), 1)
        return await asyncio.gather(*running), long


def long_beside_streams(url: str, alone: float, rounds: int) -> dict[str, float]:
    """Gaps between the streams' tokens while the long prompt is computed, against those just before."""
    worst, typical, ordinary_steps, worst_before, firsts = [], [], [], [], []
    for seed in range(rounds):
        streams, long = asyncio.run(_interrupted(url, seed, tokens=320))
        pairs = [pair for s in streams for pair in zip(s.came, s.came[1:], strict=False)]
        before = [b - a for a, b in pairs if long.asked - 3 <= a and b <= long.asked]
        ordinary = median(before)
        worst_before.append(max(before) / ordinary)
        during = [b - a for a, b in pairs if long.asked <= a and b <= long.came[0]]
        ordinary_steps.append(ordinary)
        worst.append(max(during) / ordinary)
        typical.append(median(during) / ordinary)
        firsts.append(long.first)
    return {
        "ordinary_step": median(ordinary_steps),
        "worst_gap_before_in_steps": max(worst_before),
        "worst_gap_in_steps": max(worst),
        "typical_gap_in_steps": median(typical),
        "first_token_long_beside_8": median(firsts),
        "first_token_long_beside_over_alone": median(firsts) / alone,
    }


def two_models(url: str, rounds: int, clients: int = 4, tokens: int = 64) -> dict[str, float]:
    """Both awake, each with as many clients as the one alone."""

    async def both(seed: str) -> list[Stream]:
        crowds = [crowd(url, name, _prompts(clients, f"{seed} {name}"), tokens) for name in ("m", "m2")]
        return [answer for streams in await asyncio.gather(*crowds) for answer in streams]

    ratios = []
    for index in range(rounds):
        alone = asyncio.run(crowd(url, "m", _prompts(clients, f"alone {index}"), tokens))
        shared = asyncio.run(both(f"both {index}"))
        rates = [summary(streams, tokens)["tokens_per_second"] for streams in (shared, alone)]
        ratios.append(rates[0] / rates[1])
    return {"two_models_over_one": median(ratios)}


def _prompts(count: int, seed: str) -> list[list[int]]:
    return [random_prompt(SHORT, f"{seed} {index}") for index in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    second = f'[models.m2]\npath = "{arguments.checkpoint}"\nmax_model_len = 4096\n'
    with (
        tempfile.TemporaryDirectory() as directory,
        running(Path(directory), config_of(arguments.checkpoint) + second) as server,
    ):
        wait_packed(server, "m")
        result = long_prompts(server.url, arguments.rounds)
        result |= cached_prefix(server.url, arguments.rounds)
        result |= long_beside_streams(server.url, result["first_token_1024"], arguments.rounds)
        wait_packed(server, "m2")
        result |= two_models(server.url, arguments.rounds)
    for name, value in result.items():
        print(f"{name:36} {value:.4f}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
