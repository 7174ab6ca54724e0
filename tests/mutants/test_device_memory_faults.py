"""The tests of device memory are able to fail: each planted fault is caught by the one named for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants.device_memory_faults import FAULTS
from tests.mutants.inner_run import assert_fails


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_caught(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, test = FAULTS[name]
    plant(monkeypatch)
    assert_fails(test, tmp_path)
