"""See ``tests.bench.gpu.parts``."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from tests.bench.gpu import attention
from tests.bench.gpu.result import Result
from tests.gpu import test_kernels
from tests.gpu.checks import run_checks

SUITE = "tests/engine/kernels"
NEEDS = ("pytest", "hypothesis", "transformers")
SETTINGS = "[pytest]\nmarkers =\n    soak: long\n    gpu: needs a CUDA device\n    alone: measures time\n"
"""The project's own ask for plugins that need not be there."""


def measure(result: Result, work: Path) -> None:
    run_checks(test_kernels, result)
    try:
        attention.measure(result)
    except Exception as error:  # an older torch, or one whose kernels are not for this card
        result.failure("attention", error)
    missing = [name for name in NEEDS if find_spec(name) is None]
    if missing:
        result.note(f"{SUITE} was left out: no {', '.join(missing)} here")
        return
    settings = work / "pytest.ini"
    settings.write_text(SETTINGS)
    command = [
        sys.executable,
        "-m",
        "pytest",
        SUITE,
        "-q",
        "-m",
        "not soak",
        "-c",
        str(settings),
        "--rootdir",
        ".",
    ]
    command += ["-n", "8"] if find_spec("xdist") else []
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=max(1.0, result.left - 3), check=False
        )
    except subprocess.TimeoutExpired:
        result.note(f"{SUITE} did not end in time")
        return
    print(done.stdout, done.stderr, sep="\n")
    result.note(f"{SUITE}: {(done.stdout.strip().splitlines() or ['nothing was said'])[-1]}")
    result.check("the_suite_of_kernels_compiled", done.returncode == 0)
