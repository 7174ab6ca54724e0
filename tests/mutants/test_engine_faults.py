"""The engine's tests are able to fail: each planted fault is caught by the test that is named for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine import harness
from tests.mutants import embedding_faults, family_faults, moe_faults, sampling_faults

FAULTS = family_faults.FAULTS | embedding_faults.FAULTS | moe_faults.FAULTS | sampling_faults.FAULTS


class Outcomes:
    """Which the tests of a run had."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.skipped:
            self.seen.add(report.outcome)


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_caught(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, test = FAULTS[name]
    plant(monkeypatch)
    # What a fault keeps from ever happening need not be waited for long.
    monkeypatch.setattr(harness, "patience", 1.0)
    options = ["-qx", "--tb=line", "--timeout=0", "-pno:cacheprovider", "-pno:faulthandler"]
    outcomes = Outcomes()
    code = pytest.main([*options, f"--basetemp={tmp_path / 'inner'}", test], plugins=[outcomes])
    if outcomes.seen == {"skipped"}:
        pytest.skip("so is the test that would catch it")
    assert code == pytest.ExitCode.TESTS_FAILED
