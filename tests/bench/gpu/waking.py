"""Sixteen gigabytes asleep and awake, against what the link, the RAM and the disk can do in the same run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from statistics import median

from engine import Engine, Level, TransitionReport
from tests.bench.gpu import card
from tests.bench.gpu.card import GIB
from tests.bench.gpu.checkpoints import checkpoint
from tests.bench.gpu.parts import SHARED
from tests.bench.gpu.result import Result
from tests.bench.gpu.streams import attempt, every_size, first_token, open_engine

ROUNDS, REQUESTS, ROWS = 4, 8, 64
MIB = 2**20


def measure(result: Result, work: Path) -> None:
    asyncio.run(_measure(result, work))


async def _measure(result: Result, work: Path) -> None:
    small = open_engine(checkpoint(work, "0.6b", card.DEVICE))
    await small.wake()
    await every_size(small, ROWS)  # what the first model of a process makes is not the second one's
    big = checkpoint(work, "8b", card.DEVICE)
    await small.trim_kv()
    card.trim()
    before = card.free()
    link = card.link_rate()
    result.number("link_gb_s", link / 1e9)
    began = time.perf_counter()
    model = open_engine(big)
    await model.wake()
    result.number("open_and_wake_seconds", time.perf_counter() - began)
    await first_token(model, "warm")
    steps: dict[str, Callable[[], Awaitable[None]]] = {
        "light": lambda: light(result, model, link),
        "first_tokens_1": lambda: first_tokens(result, model, 1),
        "residue": lambda: residue(result, model, before),
        "deep": lambda: deep(result, model, link, big),
        "first_tokens_2": lambda: first_tokens(result, model, 2, requests=4),
    }
    for name, step in steps.items():
        await model.wake()
        await attempt(result, name, step())
    await model.close()
    await attempt(result, "from_disk", from_disk(result, work, link))
    await small.close()


async def light(result: Result, model: Engine, link: float) -> None:
    copied = await model.sleep(1)
    result.number("first_light_sleep_seconds", copied.seconds)
    if not model.footprint().host_copy:
        result.note("there was no RAM for a copy of the weights: light sleeps were deep ones")
        return
    wakes, sleeps = await rounds(model, 1)
    result.number("weights_gib", wakes[0].bytes / GIB)
    rate = median(one.bytes / one.phases["weights"] for one in wakes)
    result.number("light_wake_gb_s", rate / 1e9)
    result.number("light_wake_over_link", rate / link, least=0.9)
    result.number("light_wake_seconds", median(one.seconds for one in wakes))
    sleep_time(result, "light", sleeps)


async def deep(result: Result, model: Engine, link: float, path: Path) -> None:
    memory = card.memory_copy_rate()
    result.number("memory_copy_gb_s", memory / 1e9)
    kept = "files of a file system in memory" if SHARED in path.parents else "the page cache"
    result.note(f"what level 2 wakes read is in {kept}")
    sleep_time(result, "copy_given_back", [await model.sleep(2)])
    wakes, sleeps = await rounds(model, 2)
    rate = median(one.bytes / one.phases["weights"] for one in wakes)
    result.number("cached_wake_gb_s", rate / 1e9)
    result.number("cached_wake_over_slower", rate / min(memory, link), least=0.8)
    sleep_time(result, "deep", sleeps)


async def rounds(model: Engine, level: Level) -> tuple[list[TransitionReport], list[TransitionReport]]:
    """Wakes and sleeps by turns, from asleep to awake."""
    wakes, sleeps = [], []
    for number in range(ROUNDS):
        wakes.append(await model.wake())
        if number < ROUNDS - 1:
            await first_token(model, number)
            sleeps.append(await model.sleep(level))
    return wakes, sleeps


def sleep_time(result: Result, name: str, sleeps: Sequence[TransitionReport]) -> None:
    """Against 20 ms and 1.2 ms for each GiB given back."""
    allowed = [0.020 + 0.0012 * one.bytes / GIB for one in sleeps]
    worst = max(one.seconds / most for one, most in zip(sleeps, allowed, strict=True))
    result.number(f"{name}_sleep_ms", median(one.seconds for one in sleeps) * 1e3)
    result.number(f"{name}_sleep_worst_over_allowed", worst, most=1.0)


async def first_tokens(result: Result, model: Engine, level: Level, requests: int = REQUESTS) -> None:
    """Awake and behind a wake by turns; the wake itself is not counted."""
    awake, woken = [], []
    for number in range(requests):
        awake.append(await first_token(model, f"awake {level} {number}"))
        await model.sleep(level)
        await model.wake()
        woken.append(await first_token(model, f"woken {level} {number}"))
    result.number(f"first_token_awake_ms_{level}", median(awake) * 1e3)
    result.number(f"first_token_woken_ms_{level}", median(woken) * 1e3)
    result.number(f"first_token_woken_over_awake_{level}", median(woken) / median(awake), most=1.05)


async def residue(result: Result, model: Engine, before: int) -> None:
    """What a sleeper keeps on the card, where another model of the process has taken what all share."""
    await every_size(model, ROWS)
    await model.sleep(1)
    kept = before - card.free()
    card.trim()
    result.number("sleeper_keeps_mib_with_torchs_cache", kept / MIB)
    result.number("sleeper_keeps_mib", (before - card.free()) / MIB, most=100)
    result.number("sleeper_says_it_keeps_mib", model.footprint().residue / MIB, most=100)
    await model.wake()


async def from_disk(result: Result, work: Path, link: float) -> None:
    """A shorter model, which is written to the disk quickly."""
    path = checkpoint(work, "8b", card.DEVICE, disk=True, num_hidden_layers=6)
    files = sorted(path.glob("*.safetensors"))
    card.uncache(files)
    direct = card.direct_read_rate(files)
    if direct is None:
        result.note("the file system of the temporary directory has no direct reads")
        return
    result.number("direct_read_gb_s", direct / 1e9)
    model = open_engine(path)
    rates = []
    for _ in range(3):
        card.uncache(files)
        woken = await model.wake()
        rates.append(woken.bytes / woken.phases["weights"])
        direct = max(direct, card.direct_read_rate(files) or 0.0)
        await model.sleep(2)
    await model.close()
    result.number("disk_wake_gb_s", median(rates) / 1e9)
    result.number("disk_wake_over_direct_reads", median(rates) / min(direct, link), least=0.9)
