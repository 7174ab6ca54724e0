"""Sleep gives memory back and changes nothing else: addresses, numbers and answers are what they were."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

import engine as engine_package
from engine.engine import TorchEngine
from engine.types import ALL_TAGS, EngineError, Level
from tests.engine.checkpoints import make_checkpoint
from tests.engine.conftest import OpenEngine
from tests.engine.harness import RecordingDecoder, collect, greedy, prompt, together

PROMPTS = [prompt(length, seed=length) for length in (3, 300, 17, 64)]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 64 MB in bfloat16, in several files."""
    return make_checkpoint(
        tmp_path_factory.mktemp("large"),
        "qwen3",
        torch.bfloat16,
        max_shard_size="20MB",
        hidden_size=640,
        intermediate_size=1920,
        num_hidden_layers=6,
        head_dim=64,
        num_attention_heads=10,
    )


def rss_anon() -> int:
    """Bytes of anonymous memory that this process really holds."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


async def batch_logits(engine: TorchEngine) -> torch.Tensor:
    """All logits of one batch that is the same every time, step by step."""
    recorder = RecordingDecoder.of(engine)
    await together(engine, PROMPTS, 12)
    return torch.cat(recorder.steps)


def addresses(engine: TorchEngine) -> list[int]:
    model = engine._model
    assert model is not None
    weights = [view.data_ptr() for view in model.runner.decoder._weights.values()]
    return weights + [view.data_ptr() for layer in model.kv.layers for view in layer]


@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("name", ["llama", "qwen3"])
async def test_logits_are_bit_identical_after_a_sleep(
    request: pytest.FixtureRequest, awake: OpenEngine, name: str, level: Level
) -> None:
    engine = await awake(request.getfixturevalue(name))
    before = await batch_logits(engine)
    places = addresses(engine)
    await engine.sleep(level)
    await engine.wake()
    assert addresses(engine) == places
    assert torch.equal(await batch_logits(engine), before)


async def test_logits_are_bit_identical_after_giving_kv_back(llama: Path, awake: OpenEngine) -> None:
    engine = await awake(llama)
    before = await batch_logits(engine)
    assert await engine.trim_kv() > 0
    assert torch.equal(await batch_logits(engine), before)


async def test_light_sleep_keeps_the_weights_and_drops_the_rest(llama: Path, awake: OpenEngine) -> None:
    engine = await awake(llama)
    await together(engine, PROMPTS, 2)
    full = engine.footprint()
    assert full.kv > 0
    assert full.host_copy == 0
    report = await engine.sleep(1)
    asleep = engine.footprint()
    assert report.bytes == full.kv
    assert (asleep.weights, asleep.kv, asleep.host_copy) == (full.weights, 0, full.weights)
    assert (await engine.wake()).bytes == 0


async def test_deep_sleep_empties_the_range(llama: Path, awake: OpenEngine) -> None:
    engine = await awake(llama)
    await together(engine, PROMPTS, 2)
    weights, kv = engine._model.arenas  # type: ignore[union-attr]
    full = engine.footprint()
    assert weights.tensor.any()
    report = await engine.sleep(2)
    asleep = engine.footprint()
    assert report.bytes == full.weights + full.kv
    assert (asleep.weights, asleep.kv, asleep.host_copy) == (0, 0, 0)
    assert asleep.to_wake >= full.weights
    assert (weights.committed, kv.committed) == (0, 0)
    assert not weights.tensor.any()


async def test_deep_sleep_gives_the_memory_back_to_the_system(large: Path, awake: OpenEngine) -> None:
    engine = await awake(large)
    nbytes = engine.footprint().weights
    assert nbytes > 50 * 2**20
    wanted = (await collect(engine, prompt(40), greedy(3))).token_ids
    for _ in range(2):
        held = rss_anon()
        await engine.sleep(2)
        assert held - rss_anon() > 0.9 * nbytes
        slept = rss_anon()
        report = await engine.wake()
        assert 0.9 * nbytes < report.bytes <= nbytes
        assert rss_anon() - slept > 0.9 * nbytes
        assert (await collect(engine, prompt(40), greedy(3))).token_ids == wanted


async def test_light_sleep_leaves_the_memory_where_it_is(large: Path, awake: OpenEngine) -> None:
    engine = await awake(large)
    held, before = rss_anon(), engine.footprint()
    await engine.sleep(1)
    assert held - rss_anon() < before.kv + 0.1 * before.weights


async def test_ten_rounds_say_the_same(qwen3: Path, awake: OpenEngine) -> None:
    engine = await awake(qwen3)
    wanted = [answer.token_ids for answer in await together(engine, PROMPTS, 8)]
    levels: list[tuple[Level, ...]] = [(1,), (2,), (1, 2), (2, 1), (1, 1)] * 2
    for sleeps in levels:
        for level in sleeps:
            await engine.sleep(level)
        await engine.wake()
        assert [answer.token_ids for answer in await together(engine, PROMPTS, 8)] == wanted


async def test_half_wakes(llama: Path, awake: OpenEngine) -> None:
    engine = await awake(llama)
    wanted = (await collect(engine, prompt(4), greedy(5))).token_ids
    for first, second in (("weights", "kv_cache"), ("kv_cache", "weights")):
        await engine.sleep(2)
        report = await engine.wake(frozenset({first}))  # type: ignore[arg-type]
        assert (report.bytes > 0) == (first == "weights")
        with pytest.raises(EngineError, match="not awake"):
            await collect(engine, prompt(4), greedy(1))
        assert (engine.footprint().weights > 0) == (first == "weights")
        await engine.wake(frozenset({second}))  # type: ignore[arg-type]
        assert (await collect(engine, prompt(4), greedy(5))).token_ids == wanted


async def test_sleep_out_of_a_half_wake_gives_all_back(llama: Path, awake: OpenEngine) -> None:
    engine = await awake(llama)
    await engine.sleep(2)
    await engine.wake(frozenset({"weights"}))
    await engine.sleep(2)
    assert engine.footprint().weights == 0
    assert (await engine.wake(ALL_TAGS)).bytes > 0


async def test_waking_twice_and_sleeping_before_ever_waking(llama: Path, awake: OpenEngine) -> None:
    engine = await awake(llama)
    assert (await engine.wake()).bytes == 0
    fresh = await awake(llama)
    await fresh.close()
    assert fresh.footprint().device == 0


async def test_opening_and_loading_read_no_weights(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.reader.os.preadv", None)
    opened = engine_package.open(str(llama), "cpu")
    expected = opened.footprint().to_wake
    await opened.load()
    await opened.load()
    try:
        loaded = opened.footprint()
        assert (loaded.weights, loaded.kv) == (0, 0)
        assert loaded.to_wake + loaded.residue == expected > 0
        assert (await opened.sleep(2)).bytes == 0
    finally:
        await opened.close()


async def test_an_estimate_is_what_waking_takes(large: Path, awake: OpenEngine) -> None:
    estimate = engine_package.estimate(str(large))
    assert estimate is not None
    engine = await awake(large)
    assert 0 <= engine.footprint().weights - estimate.weights_bytes < 0.05 * estimate.weights_bytes + 2**21


async def test_what_a_wake_has_read_so_far_is_counted(
    large: Path, awake: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await awake(large)
    whole = engine.footprint()
    await engine.sleep(2)
    asleep, real, seen = engine.footprint(), os.preadv, []

    def preadv(*args: Any) -> int:
        seen.append(engine.footprint())
        return real(*args)

    with monkeypatch.context() as reading:
        reading.setattr("engine.reader._PIECE", 2**20)
        reading.setattr("engine.reader.os.preadv", preadv)
        await engine.wake()
    grown = [one.weights for one in seen]
    assert grown == sorted(grown) and grown[0] == 0 and grown[-1] > whole.weights / 2
    assert {one.weights + one.to_wake for one in seen} == {asleep.to_wake - whole.kv}
    assert {one.host_copy for one in seen} == {0}, "nothing is parked that is on its way"
    assert engine.footprint() == whole
