"""See ``tests.bench.gpu.parts``."""

from __future__ import annotations

from pathlib import Path

from tests.bench.gpu.result import Result
from tests.gpu import test_memory, test_models
from tests.gpu.checks import run_checks


def measure(result: Result, work: Path) -> None:
    run_checks(test_memory, result)
    run_checks(test_models, result)
