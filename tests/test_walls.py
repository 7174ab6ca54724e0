"""What importing a room must not bring along: the client verbs are instant, and the seam costs nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import engine.demo

HEAVY = ("torch", "transformers", "litestar", "uvicorn", "apscheduler", "huggingface_hub")


def imported_by(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after ``statement``."""
    script = f"{statement}\nimport sys\nsys.stderr.write(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    return {name.partition(".")[0] for name in done.stderr.split()}


@pytest.mark.parametrize(
    "statement",
    [
        "import engine",
        "import gateway.cli",
        "import gateway.config_file",
        "import gateway.commands.ps",
        "import gateway.commands.chat",
        "from gateway.cli import main\ntry: main(['ps', '--help'])\nexcept SystemExit: pass",
    ],
)
def test_nothing_heavy_comes_with(statement: str) -> None:
    assert imported_by(statement).isdisjoint(HEAVY)


def test_the_command_asks_for_http_and_tables_only_when_a_verb_needs_them() -> None:
    assert imported_by("import gateway.cli").isdisjoint({"httpx", "rich"})


def test_an_estimate_leaves_torch_out() -> None:
    demo = Path(engine.demo.__file__).parent / "demo-a"
    assert imported_by(f"import engine\nassert engine.estimate({str(demo)!r})").isdisjoint(HEAVY)


def test_the_server_leaves_torch_out() -> None:
    assert imported_by("import gateway.server").isdisjoint({"torch", "transformers"})
