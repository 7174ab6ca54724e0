"""The engine's tests are able to fail: each planted fault is caught by the test that is named for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine import harness
from tests.mutants import embedding_faults, family_faults, lookahead_faults, moe_faults, sampling_faults
from tests.mutants.inner_run import assert_fails

FAULTS = (
    family_faults.FAULTS
    | embedding_faults.FAULTS
    | lookahead_faults.FAULTS
    | moe_faults.FAULTS
    | sampling_faults.FAULTS
)


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_caught(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, test = FAULTS[name]
    plant(monkeypatch)
    # What a fault keeps from ever happening need not be waited for long.
    monkeypatch.setattr(harness, "patience", 1.0)
    assert_fails(test, tmp_path)
