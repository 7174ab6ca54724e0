"""Two busy engines under one device limit: never more than it, nothing lost, nobody starved."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from engine.device import Device
from engine.engine import TorchEngine
from engine.memory.budget import Budget
from engine.memory.cpu import CpuArena
from engine.types import EngineOptions, OutOfMemory
from tests.engine.checkpoints import make_checkpoint
from tests.engine.harness import collect, greedy, prompt


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    """A device of the test's own, whose engines do not meet those of other tests."""
    budget = Budget()
    own = Device("cpu", partial(CpuArena, budget=budget), budget)
    monkeypatch.setattr("engine.engine.get_device", lambda name: own)
    yield own


async def open_two(path: Path) -> tuple[TorchEngine, TorchEngine]:
    engines = (TorchEngine(str(path), "cpu", EngineOptions()), TorchEngine(str(path), "cpu", EngineOptions()))
    for engine in engines:
        await engine.wake()
    return engines


async def test_two_busy_engines_stay_within_the_limit(tmp_path: Path, device: Device) -> None:
    first, second = await open_two(make_checkpoint(tmp_path, head_dim=64, num_key_value_heads=6))
    asked = [(prompt(120, seed=seed), greedy(60)) for seed in range(8)]
    expected = [await collect(first, ids, sampling) for ids, sampling in asked]
    for engine in (first, second):
        await engine.trim_kv()
    # Room for their weights and six chunks of KV, where both together would take more.
    chunk = first._model.kv.chunk_bytes  # type: ignore[union-attr]
    device.budget.limit = device.budget.used + 6 * chunk
    peak = 0

    async def watch() -> None:
        nonlocal peak
        while True:
            peak = max(peak, device.budget.used)
            await asyncio.sleep(0.001)

    watching = asyncio.create_task(watch())
    answers = await asyncio.gather(
        *(collect(engine, ids, sampling) for engine in (first, second) for ids, sampling in asked)
    )
    watching.cancel()
    assert [a.token_ids for a in answers] == [e.token_ids for e in expected] * 2
    assert peak == device.budget.limit, "all of it is used, and no more"
    held = sum(engine.footprint().weights + engine.footprint().kv for engine in (first, second))
    assert held == device.budget.used
    for engine in (first, second):
        await engine.close()
    assert device.budget.used == 0


async def test_a_wake_past_the_limit_takes_nothing(llama: Path, device: Device) -> None:
    first, second = await open_two(llama)
    await second.sleep(2)
    device.budget.limit = device.budget.used
    before = device.budget.used
    with pytest.raises(OutOfMemory):
        await second.wake()
    assert device.budget.used == before
    device.budget.limit = None
    await second.wake()
    for engine in (first, second):
        await engine.close()
