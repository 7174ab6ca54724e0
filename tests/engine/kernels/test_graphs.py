"""Steps of answers as graphs, by a stand-in that makes the recorded launches again on the same memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.attention.interface import CpuAttention
from engine.attention.triton import TritonAttention
from engine.device import Device
from engine.devices import get_device
from engine.engine import TorchEngine
from engine.graphs import rounded_rows
from engine.models.operations import TorchOperations
from engine.models.triton_operations import TritonOperations
from engine.types import EngineOptions, Level
from tests.engine.checkpoints import make_checkpoint
from tests.engine.fake_device import install_device
from tests.engine.harness import collect, greedy, prompt, together
from tests.engine.kernels.tape import Tapes
from tests.engine.memory.fake_driver import FakeDriver

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the launches are the interpreter's")

Open = Callable[..., Awaitable[TorchEngine]]
PROMPTS = [prompt(length, seed=length) for length in (2, 15, 1)]
"""Short, for the interpreter takes its time over each row; one goes on into its next block."""


@pytest.fixture
def tapes() -> Tapes:
    return Tapes()


@pytest.fixture
def device(tapes: Tapes, monkeypatch: pytest.MonkeyPatch) -> Device:
    """A CUDA device whose driver is a fake, whose kernels are interpreted, and whose graphs are tapes."""
    monkeypatch.setattr("engine.models.decoder.attention_for", TritonAttention)
    monkeypatch.setattr("engine.models.decoder.operations_for", lambda config, _: TritonOperations(config))
    return install_device(monkeypatch, FakeDriver(memory=256 * 2**20), tapes)


@pytest.fixture
async def awake(device: Device) -> AsyncIterator[Open]:
    opened: list[TorchEngine] = []

    async def open_and_wake(path: Path, **options: Any) -> TorchEngine:
        opened.append(TorchEngine(str(path), "cuda", EngineOptions(max_model_len=96, **options)))
        await opened[-1].wake()
        return opened[-1]

    yield open_and_wake
    for one in opened:
        await one.close()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("qwen3")
    return make_checkpoint(directory, "qwen3", num_hidden_layers=1)


async def test_the_same_answers_as_on_a_cpu(
    model: Path, awake: Open, tapes: Tapes, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await awake(model)
    found = await together(engine, PROMPTS, 4)
    assert (tapes.recorded, tapes.replayed) == (1, 3)
    monkeypatch.setattr("engine.engine.get_device", get_device)
    monkeypatch.setattr("engine.models.decoder.attention_for", CpuAttention)
    monkeypatch.setattr("engine.models.decoder.operations_for", lambda config, _: TorchOperations(config))
    reference = TorchEngine(str(model), "cpu", EngineOptions())
    await reference.wake()
    assert found == await together(reference, PROMPTS, 4)
    await reference.close()


async def test_graphs_outlast_sleeps(model: Path, awake: Open, tapes: Tapes) -> None:
    engine, other = await awake(model), await awake(model)
    before = await together(engine, PROMPTS[:2], 3)
    recorded = tapes.recorded
    levels: list[Level] = [1, 2]
    for level in levels:
        await engine.sleep(level)
        await collect(other, PROMPTS[0], greedy(2))
        await engine.wake()
        assert await together(engine, PROMPTS[:2], 3) == before
    assert tapes.recorded == recorded + 1, "the other's"


async def test_a_graph_for_each_number_of_rows_that_is_rounded_to(
    model: Path, awake: Open, tapes: Tapes
) -> None:
    engine = await awake(model, max_running=3)
    alone = [await collect(engine, ids, greedy(3)) for ids in PROMPTS]
    assert tapes.recorded == 1
    assert await together(engine, PROMPTS, 3) == alone
    assert tapes.recorded == 2
    steps = engine._model.runner.graphs._steps.values()  # type: ignore[union-attr]
    assert len({step.logits.untyped_storage().data_ptr() for step in steps}) == 1, "one place for results"
    held = engine.footprint().residue
    assert held > 2000, "what graphs hold is counted"
    await engine.sleep(2)
    assert engine.footprint().residue == held


async def test_without_room_for_a_graph_steps_go_on_without(model: Path, awake: Open, tapes: Tapes) -> None:
    engine = await awake(model)
    before = await collect(engine, PROMPTS[0], greedy(4))
    await engine.close()
    again, tapes.failing = await awake(model), True
    assert await collect(again, PROMPTS[0], greedy(4)) == before
    assert tapes.recorded == 1


def test_to_which_rows_are_rounded() -> None:
    assert rounded_rows(1) == [1]
    assert rounded_rows(3) == [1, 2, 3]
    assert rounded_rows(20) == [1, 2, 4, 8, 16, 20]
