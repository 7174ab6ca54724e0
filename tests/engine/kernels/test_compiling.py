"""What the interpreter runs is also what Triton's compiler takes, for cards that are not here."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SMALLEST_SHARED = 99 * 1024
"""What a program may have on the cards of the consumer lines; data centres' have more."""
FEW = 128
"""Bytes beside the registers that cost no time to speak of."""


@pytest.mark.parametrize(
    "target",
    [["90"], *(pytest.param([card, "more"], marks=pytest.mark.soak) for card in ("80", "89", "90", "100"))],
    ids=" ".join,
)
def test_every_kernel_compiles(target: list[str], pytestconfig: pytest.Config) -> None:
    command = [sys.executable, "-W", "error", "-m", "tests.engine.kernels.compile_all", *target]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    assert pytestconfig.cache
    environment["TRITON_CACHE_DIR"] = str(pytestconfig.cache.mkdir("triton"))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    kernels = [line.split() for line in done.stdout.splitlines()]
    assert {name for name, _, _ in kernels} == {
        "_tile", "_pieces", "_merge", "_rotate", "_norm", "_gated", "_choose"
    }  # fmt: skip
    for name, shared, spilled in kernels:
        assert int(shared) <= SMALLEST_SHARED, name
        assert int(spilled) <= FEW, name
