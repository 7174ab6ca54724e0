"""Shared by all tests: hypothesis profiles, the order, how kernels run, and less work for the garbage
collector."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before anybody imports Triton, which chooses then

settings.register_profile("dev", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("dev"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


LONG = [Path(__file__).with_name(name) for name in ("clients", "e2e", "mutants", "test_faults.py")]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files go first, so that two processes that share them out end together."""
    items.sort(key=lambda item: not any(item.path.is_relative_to(long) for long in LONG))


def pytest_collection_finish() -> None:
    """What imports have left is there to stay: torch and transformers are 0.2 s of every full collection."""
    gc.collect()
    gc.freeze()
