"""Tokens a second by requests in flight."""

from __future__ import annotations

import asyncio
import time

import engine
from engine import GenerateRequest, SamplingParams
from gateway.bench.first_token import PROMPT

TOKENS = 16


async def tokens_per_second(model: engine.Engine, in_flight: int) -> float:
    """Of so many requests together, from when all have their first token."""
    spans = await asyncio.gather(*(_span(model) for _ in range(in_flight)))
    began, ended = max(began for began, _ in spans), max(ended for _, ended in spans)
    return in_flight * TOKENS / (ended - began)


async def _span(model: engine.Engine) -> tuple[float, float]:
    """When the first token came and when the last."""
    sampling = SamplingParams(max_tokens=TOKENS + 1, temperature=0.0, ignore_eos=True)
    began = 0.0
    async for _ in model.generate(GenerateRequest(prompt_ids=PROMPT, sampling=sampling)):
        began = began or time.perf_counter()
    return began, time.perf_counter()
