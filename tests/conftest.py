"""Shared by all tests: hypothesis profiles, and a short way for the garbage collector."""

from __future__ import annotations

import gc
import os

from hypothesis import HealthCheck, settings

settings.register_profile("dev", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("dev"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


def pytest_collection_finish() -> None:
    """What imports have left is there to stay: torch and transformers are 0.2 s of every full collection."""
    gc.collect()
    gc.freeze()
