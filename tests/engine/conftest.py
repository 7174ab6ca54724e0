"""Tiny checkpoints, made once, and engines that are closed again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import engine
from engine.device import Device
from engine.engine import TorchEngine
from engine.memory.budget import Budget
from engine.memory.cpu import CpuArena
from engine.types import EngineOptions
from tests.engine.checkpoints import make_checkpoint
from tests.engine.harness import Stepper

# Tiny matrices gain nothing from two threads, and lose much while another process has the other core.
torch.set_num_threads(1)

OpenEngine = Callable[..., Awaitable[TorchEngine]]
OpenStepper = Callable[..., Stepper]


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float32 Llama; not to be written to."""
    return make_checkpoint(tmp_path_factory.mktemp("llama"), "llama")


@pytest.fixture(scope="session")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bfloat16 Qwen3; not to be written to."""
    return make_checkpoint(tmp_path_factory.mktemp("qwen3"), "qwen3", torch.bfloat16, seed=1)


@pytest.fixture
async def awake(caplog: pytest.LogCaptureFixture) -> AsyncIterator[OpenEngine]:
    """Opens engines that are awake; closes them after the test. None of them may have lost a block."""
    opened: list[TorchEngine] = []

    async def open_and_wake(path: Path, **options: Any) -> TorchEngine:
        made = engine.open(str(path), "cpu", EngineOptions(**options))
        assert isinstance(made, TorchEngine)
        opened.append(made)
        await made.wake()
        return made

    yield open_and_wake
    for one in opened:
        await one.close()
    assert not [one for one in caplog.get_records("call") if "do not add up" in one.getMessage()]


@pytest.fixture
def own_device(monkeypatch: pytest.MonkeyPatch) -> Device:
    """A device of the test's own, whose engines do not meet those of other tests."""
    budget = Budget()
    own = Device("cpu", partial(CpuArena, budget=budget), budget)
    monkeypatch.setattr("engine.engine.get_device", lambda name: own)
    return own


@pytest.fixture
def stepper() -> Iterator[OpenStepper]:
    """Makes steppers, whose memory is given back after the test."""
    made: list[Stepper] = []

    def make(path: Path, **options: Any) -> Stepper:
        made.append(Stepper(path, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()
