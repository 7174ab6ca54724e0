"""What torch keeps on a CUDA device is known and given back, where torch is on one at all."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from engine.memory.torch_cache import give_back, kept_by_torch


def test_without_torch_on_a_device_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kept_by_torch(0) == 0
    give_back()
    monkeypatch.delitem(sys.modules, "torch")
    assert kept_by_torch(0) == 0
    give_back()
    assert "torch" not in sys.modules


def test_what_is_reserved_and_not_in_use_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    emptied = []
    cuda = SimpleNamespace(
        is_initialized=lambda: True,
        memory_reserved=lambda ordinal: 100 + ordinal,
        memory_allocated=lambda ordinal: 40,
        empty_cache=lambda: emptied.append(True),
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert kept_by_torch(1) == 61
    give_back()
    assert emptied == [True]
