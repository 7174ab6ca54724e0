"""Answers of engines in this process, timed token by token."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field

import engine
from engine import Engine, EngineOptions, GenerateRequest, SamplingParams
from tests.bench.gpu.result import Result


@dataclass
class Answer:
    asked: float = field(default_factory=time.perf_counter)
    came: list[float] = field(default_factory=list)
    """When each token came, by the clock of ``asked``."""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[tuple[tuple[int, float], ...]] = field(default_factory=list)
    """Of each token the most likely ones, where asked for."""

    @property
    def first(self) -> float:
        """Seconds to the first token."""
        return self.came[0] - self.asked


def random_prompt(tokens: int, seed: int | str) -> list[int]:
    """No two alike, and none with a token that ends an answer."""
    numbers = random.Random(seed)
    return [numbers.randrange(300, 30_000) for _ in range(tokens)]


def open_engine(path: object, **options: int | bool | str) -> Engine:
    """Without a prefix cache, unless it is asked for: no answer shall be cheaper than another."""
    return engine.open(str(path), "cuda", EngineOptions(**{"prefix_cache": False, **options}))  # type: ignore[arg-type]


async def attempt(result: Result, name: str, work: Awaitable[None]) -> None:
    """A failure is told of, and what comes after it runs nevertheless."""
    try:
        await work
    except Exception as error:
        result.failure(name, error)


async def answer(
    model: Engine,
    prompt: Sequence[int],
    tokens: int,
    *,
    logprobs: int | None = None,
    into: Answer | None = None,
) -> Answer:
    """Greedy. ``into``: is filled while it comes."""
    found = into or Answer()
    params = SamplingParams(max_tokens=tokens, temperature=0.0, ignore_eos=True, logprobs=logprobs)
    async for deltas in model.generate(GenerateRequest(prompt_ids=prompt, sampling=params)):
        now = time.perf_counter()
        for delta in deltas:
            found.came += [now] * len(delta.token_ids)
            found.token_ids += delta.token_ids
            found.logprobs += [one.top for one in delta.logprobs]
    return found


async def answers(model: Engine, prompts: Sequence[Sequence[int]], tokens: int) -> list[Answer]:
    return await asyncio.gather(*(answer(model, prompt, tokens) for prompt in prompts))


async def every_size(model: Engine, most: int) -> None:
    """Batches of every number of rows, so that there is a graph for each that there can be."""
    prompts = [random_prompt(16, f"size {number}") for number in range(most)]
    await asyncio.gather(*(answer(model, ids, most + 2 * i) for i, ids in enumerate(prompts)))


async def first_token(model: Engine, seed: int | str, tokens: int = 128) -> float:
    """Seconds."""
    return (await answer(model, random_prompt(tokens, seed), 1)).first


def step_seconds(found: Answer) -> float:
    """From one token to the next, but for the first few."""
    came = found.came[len(found.came) // 10 :]
    return (came[-1] - came[0]) / (len(came) - 1)


def steady_rate(found: Sequence[Answer]) -> float:
    """Tokens a second while all of them had begun and none had ended; 0: they never ran together."""
    begun, ended = max(one.came[0] for one in found), min(one.came[-1] for one in found)
    return count_between(found, begun, ended) / (ended - begun) if begun < ended else 0.0


def count_between(found: Sequence[Answer], start: float, stop: float) -> int:
    """Tokens that came behind ``start`` and not behind ``stop``."""
    return sum(start < moment <= stop for one in found for moment in one.came)
