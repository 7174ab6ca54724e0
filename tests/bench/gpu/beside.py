"""Streams of one model while another one wakes and sleeps beside them."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from engine import Engine
from tests.bench.gpu import card
from tests.bench.gpu.checkpoints import checkpoint
from tests.bench.gpu.result import Result
from tests.bench.gpu.streams import Answer, answer, answers, count_between, open_engine, random_prompt

STREAMS, TOKENS, ROUNDS = 8, 3500, 6
Span = tuple[float, float]


def measure(result: Result, work: Path) -> None:
    paths = (checkpoint(work, "0.6b", card.DEVICE), checkpoint(work, "8b", card.DEVICE))
    card.trim()
    asyncio.run(_measure(result, paths))


async def _measure(result: Result, paths: tuple[Path, Path]) -> None:
    streaming, waking = (open_engine(path) for path in paths)
    await waking.wake()
    await waking.sleep(1)
    if not waking.footprint().host_copy:
        result.note("there was no RAM for a copy of the weights: all wakes read files")
    await streaming.wake()
    await answers(streaming, [random_prompt(16, f"warm {i}") for i in range(STREAMS)], 16)
    for level in (1, 2):
        found = [Answer() for _ in range(STREAMS)]
        running = [
            asyncio.create_task(answer(streaming, random_prompt(64, f"{level} {i}"), TOKENS, into=one))
            for i, one in enumerate(found)
        ]
        while not all(one.came for one in found):  # noqa: ASYNC110 - it happens on another thread
            await asyncio.sleep(0.01)
        wakes, quiet = await take_turns(waking, level, running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if len(wakes) < 2:
            result.note(f"level {level}: the streams were over too soon")
            continue
        undisturbed, disturbed = rate(found, quiet), rate(found, wakes)
        result.number(f"undisturbed_tokens_s_{level}", undisturbed)
        result.number(f"beside_wakes_tokens_s_{level}", disturbed)
        result.number(f"kept_beside_wakes_{level}", disturbed / undisturbed, least=0.9)
        result.number(f"longest_gap_ms_{level}", longest_gap(found, wakes) * 1e3)
    await streaming.close()
    await waking.close()


async def take_turns(
    waking: Engine, level: int, running: list[asyncio.Task[Answer]]
) -> tuple[list[Span], list[Span]]:
    """From when to when it woke, and when nothing happened, while all streams ran."""
    wakes, quiet = [], []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        await asyncio.sleep(0.4)
        middle = time.perf_counter()
        await waking.wake()
        ended = time.perf_counter()
        if any(task.done() for task in running):
            break
        quiet.append((began, middle))
        wakes.append((middle, ended))
        await waking.sleep(1 if level == 1 else 2)
    return wakes, quiet


def rate(found: list[Answer], spans: list[Span]) -> float:
    """Tokens a second."""
    return sum(count_between(found, *span) for span in spans) / sum(stop - start for start, stop in spans)


def longest_gap(found: list[Answer], spans: list[Span]) -> float:
    """Between two tokens of a stream, of which the second came in one of the spans."""
    gaps = [
        later - earlier
        for one in found
        for earlier, later in zip(one.came, one.came[1:], strict=False)
        if any(start < later <= stop for start, stop in spans)
    ]
    return max(gaps, default=0.0)
