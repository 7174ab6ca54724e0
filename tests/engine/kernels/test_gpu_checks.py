"""The checks that a GPU makes of the kernels, where there is none: interpreted, in float16, and smaller."""

from __future__ import annotations

import inspect

import pytest
import torch

from engine.attention import AttentionSpec
from tests.bench.gpu import card
from tests.gpu import test_kernels

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="they run there themselves")
CHECKS = [
    check
    for name, check in vars(test_kernels).items()
    if name.startswith("test_") and inspect.isfunction(check)
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_checks_hold(
    check: test_kernels.Check, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(card, "DEVICE", device)
    monkeypatch.setattr(test_kernels, "DTYPE", torch.float16)
    monkeypatch.setattr(test_kernels, "CASES", [((2, 1, 64), AttentionSpec(0.1, window=100, softcap=30.0))])
    monkeypatch.setattr(test_kernels, "WIDE", (2, 1, 64))
    monkeypatch.setattr(test_kernels, "LONG", 300)
    monkeypatch.setattr(test_kernels, "ROWS", [(3, 200)])
    check()
