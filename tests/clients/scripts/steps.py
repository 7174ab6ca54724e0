"""The steps of a client's script: each shows one thing and says what it saw.

All run, or those named on the command line. The exit code is 1 when one failed, and the others still ran.
"""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Callable, Coroutine
from typing import Any

CHAT, EMBEDDINGS = "demo", "minilm"
TO_THE_POINT = {"98": 100}
"""A bias to the demo model's closing brace: of JSON without a schema it would find no end."""

Step = Callable[[], str] | Callable[[], Coroutine[Any, Any, str]]


def run(*steps: Step) -> None:
    chosen = sys.argv[1:] or [step.__name__ for step in steps]
    with asyncio.Runner() as runner:
        passed = [_passes(step, runner) for step in steps if step.__name__ in chosen]
    sys.exit(0 if passed and all(passed) else 1)


def _passes(step: Step, runner: asyncio.Runner) -> bool:
    try:
        saw = step()
        if not isinstance(saw, str):
            saw = runner.run(saw)
    except Exception:
        print(f"{step.__name__}: FAILED", flush=True)
        traceback.print_exc()
        return False
    print(f"{step.__name__}: {saw}", flush=True)
    return True
