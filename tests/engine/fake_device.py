"""A CUDA device on the fake driver, which is what every engine gets that is opened from now on."""

from __future__ import annotations

import pytest

from engine.device import Device
from engine.devices import cuda_device
from engine.graphs import GraphRecorder
from tests.engine.memory.fake_driver import FakeDriver


def install_device(
    monkeypatch: pytest.MonkeyPatch, driver: FakeDriver, graphs: GraphRecorder | None = None
) -> Device:
    """Its tensors are RAM, and its ring has small buffers."""
    monkeypatch.setattr("engine.devices._RING_BUFFER", 32 * 1024)
    made = cuda_device(driver, "cpu", driver.tensor, graphs)
    monkeypatch.setattr("engine.engine.get_device", lambda name: made)
    return made
