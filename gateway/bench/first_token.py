"""The time to a first token."""

from __future__ import annotations

import time

import engine
from engine import GenerateRequest, SamplingParams

PROMPT = tuple(range(1, 17))


async def first_token(model: engine.Engine) -> float:
    """Seconds from asking an awake model to its first token, for a prompt of 16 tokens."""
    request = GenerateRequest(prompt_ids=PROMPT, sampling=SamplingParams(max_tokens=1, temperature=0.0))
    started = time.perf_counter()
    async for _ in model.generate(request):
        pass
    return time.perf_counter() - started
