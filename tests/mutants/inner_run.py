"""A test run within a test, to see that it fails."""

from __future__ import annotations

from pathlib import Path

import pytest


class Outcomes:
    """Which the tests of a run had."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.skipped:
            self.seen.add(report.outcome)


def assert_fails(test: str, directory: Path) -> None:
    """``directory`` takes what the test writes."""
    options = ["-qx", "--tb=line", "--timeout=0", "-pno:cacheprovider", "-pno:faulthandler"]
    outcomes = Outcomes()
    code = pytest.main([*options, f"--basetemp={directory / 'inner'}", test], plugins=[outcomes])
    if outcomes.seen == {"skipped"}:
        pytest.skip("so is the test that would catch it")
    assert code == pytest.ExitCode.TESTS_FAILED
