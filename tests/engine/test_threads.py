from __future__ import annotations

import os
import subprocess
import sys

import pytest


def spins(environment: dict[str, str]) -> str:
    """What libgomp reads when torch is imported, after the engine."""
    ask = "import engine, torch, os; print(os.environ.get('GOMP_SPINCOUNT'))"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    run = subprocess.run(
        [sys.executable, "-c", ask], env=kept | environment, capture_output=True, text=True, check=True
    )
    return run.stdout.strip()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")],
)
def test_threads_spin_briefly_unless_told_otherwise(environment: dict[str, str], expected: str) -> None:
    assert spins(environment) == expected
