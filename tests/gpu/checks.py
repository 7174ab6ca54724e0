"""Runs the functions of a test module by itself: ``make gpu`` needs no pytest."""

from __future__ import annotations

import asyncio
import inspect
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.bench.gpu.result import Result


def run_checks(module: ModuleType, result: Result) -> None:
    """Every one, whatever became of those before it."""
    for name, check in vars(module).items():
        if name.startswith("test_") and inspect.isfunction(check):
            began = time.monotonic()
            passed = _passes(check, result)
            result.check(name.removeprefix("test_"), passed)
            print(
                f"  {name}: {'passed' if passed else 'FAILED'}, {time.monotonic() - began:.1f} s", flush=True
            )


def _passes(check: Callable[..., Any], result: Result) -> bool:
    """``tmp_path`` is all that a check may ask for, as of pytest."""
    with tempfile.TemporaryDirectory() as directory:
        given = {"tmp_path": Path(directory)} if inspect.signature(check).parameters else {}
        try:
            done = check(**given)
            if inspect.iscoroutine(done):
                asyncio.run(done)
        except Exception as error:
            result.failure(check.__name__, error)
            return False
        return True
