"""Twenty-eight gigabytes: the shape of a 14B."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from tests.bench.gpu import card
from tests.bench.gpu.checkpoints import checkpoint
from tests.bench.gpu.result import Result
from tests.bench.gpu.streams import answer, first_token, open_engine, random_prompt, step_seconds
from tests.bench.gpu.waking import light


def measure(result: Result, work: Path) -> None:
    path = checkpoint(work, "14b", card.DEVICE)
    card.trim()
    asyncio.run(_measure(result, path, card.link_rate()))


async def _measure(result: Result, path: Path, link: float) -> None:
    result.number("link_gb_s", link / 1e9)
    began = time.perf_counter()
    model = open_engine(path)
    await model.wake()
    result.number("open_and_wake_seconds", time.perf_counter() - began)
    await first_token(model, "warm")
    found = await answer(model, random_prompt(128, "one"), 64)
    result.number("one_answer_tokens_s", 1 / step_seconds(found))
    await light(result, model, link)
    await model.close()
