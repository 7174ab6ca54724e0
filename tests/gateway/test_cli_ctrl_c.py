"""Ctrl-C leaves no trace, even before the command knows what it is asked."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.terminal import heed_ctrl_c

PROGRAM = """
import importlib.abc, os, signal, sys

class CtrlC(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == MODULE:
            os.kill(os.getpid(), signal.SIGINT)

from gateway.__main__ import main
sys.meta_path.insert(0, CtrlC())
sys.argv.append("ps")
main()
"""


@pytest.mark.parametrize("module", ["gateway.cli", "argparse", "engine", "gateway.commands.ps"])
def test_ctrl_c_amid_an_import_is_quiet(module: str) -> None:
    command = [sys.executable, "-c", f"MODULE = {module!r}\n{PROGRAM}"]
    done = subprocess.run(command, capture_output=True, preexec_fn=heed_ctrl_c)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_the_package_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "gateway", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()[0]) == (0, "dormouse")
