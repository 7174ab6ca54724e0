"""Streaming completions, timed token by token, from any server that speaks OpenAI's API."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

import httpx


@dataclass(frozen=True)
class Stream:
    """One answer: when it was asked for, and when each of its tokens came, by one clock. Tokens that are no
    text of their own, as the first byte of a character, are told of with the next one; they came between."""

    asked: float
    came: list[float]
    cached_tokens: int = 0
    text: str = ""

    @property
    def first(self) -> float:
        """Seconds to the first token."""
        return self.came[0] - self.asked

    @property
    def gaps(self) -> list[float]:
        return [b - a for a, b in zip(self.came, self.came[1:], strict=False)]


def random_prompt(tokens: int, seed: int | str) -> list[int]:
    """No two alike, so that no cache helps."""
    numbers = random.Random(seed)
    return [numbers.randrange(300, 30_000) for _ in range(tokens)]


async def stream(
    client: httpx.AsyncClient,
    model: str,
    prompt: Sequence[int],
    tokens: int,
    begun: asyncio.Event | None = None,
) -> Stream:
    """``begun`` is set at the first token."""
    body = {
        "model": model,
        "prompt": list(prompt),
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }
    asked, came, usage, text = time.perf_counter(), [], {}, ""
    async with client.stream("POST", "/v1/completions", json=body) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                chunk = json.loads(line[6:])
                usage = chunk.get("usage") or usage
                if chunk.get("choices"):
                    text += chunk["choices"][0]["text"]
                    new = max(1, (usage.get("completion_tokens") or 0) - len(came))
                    now, last = time.perf_counter(), came[-1] if came else asked
                    came += [last + (now - last) * (at + 1) / new for at in range(new)] if came else [now]
                    if begun:
                        begun.set()
    assert came, "no token came"
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return Stream(asked, came, cached, text)


async def crowd(url: str, model: str, prompts: Sequence[Sequence[int]], tokens: int) -> list[Stream]:
    """All prompts at once, each from a client of its own."""
    async with httpx.AsyncClient(base_url=url, timeout=600) as client:
        return await asyncio.gather(*(stream(client, model, prompt, tokens) for prompt in prompts))


def summary(streams: Sequence[Stream], tokens: int) -> dict[str, Any]:
    """``decode_seconds``: between two tokens while all streams run, which is the end of the run."""
    seconds = max(s.came[-1] for s in streams) - min(s.asked for s in streams)
    together = max(s.came[0] for s in streams)
    gaps = [b - a for s in streams for a, b in zip(s.came, s.came[1:], strict=False) if a >= together]
    return {
        "tokens_per_second": len(streams) * tokens / seconds,
        "first_token_seconds": mean(s.first for s in streams),
        "decode_seconds": median(gaps or [0.0]),
    }
