"""How the threads that compute a step wait for each other.

OpenMP's wait for the slowest by spinning, for milliseconds unless told otherwise. When another process keeps
a core busy the slowest has no core to be quick on, and those who spin take what is left: a step takes several
times as long. A short spin and then sleep costs a quiet machine a few per cent of a step
(`python -m tests.bench.busy_cores`).
"""

from __future__ import annotations

import os
from typing import Final

_SPINS: Final = 1000
"""Some microseconds."""
_SETTINGS: Final = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def spin_briefly() -> None:
    """Unless the environment has a word on it. Only before torch is imported."""
    if not any(name in os.environ for name in _SETTINGS):
        os.environ["GOMP_SPINCOUNT"] = str(_SPINS)
