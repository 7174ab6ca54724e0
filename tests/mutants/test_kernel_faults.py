"""The tests of kernels are able to fail: each planted fault is caught by the one named for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.mutants.inner_run import assert_fails
from tests.mutants.kernel_faults import FAULTS, plant

if torch.cuda.is_available():
    pytest.skip("kernels are changed under Triton's interpreter", allow_module_level=True)


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_caught(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(FAULTS[name], monkeypatch)
    assert_fails(f"tests/engine/kernels/{FAULTS[name].test}", tmp_path)
