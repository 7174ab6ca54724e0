"""Tab completes verbs, options, choices and models; elsewhere the shell completes files."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.cli import parser
from gateway.commands.completion import complete
from tests.e2e.server import DORMOUSE
from tests.gateway.gateway_process import Process, running

NOBODY = ("--url", "http://127.0.0.1:9")


@pytest.fixture(scope="module")
def gateway() -> Iterator[Process]:
    with running("fake/quick", "fake/slow") as process:
        yield process


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.toml").write_text("[models.filed]\n[models.other]\n")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["sl"], ["sleep"]),
        (["--v"], ["--version"]),
        (["sleep", "--le"], ["--level"]),
        (["sleep", "--level", ""], ["1", "2"]),
        (["serve", "--dtype", "bf"], ["bfloat16"]),
        (["bench", "s"], ["switch"]),
        (["completion", "z"], ["zsh"]),
        (["check", "--config", ""], []),  # files
        (["pull", ""], ["filed", "other"]),
        (["pull", "--config", "none.toml", ""], []),
        (["ps", ""], []),
        (["no-such-verb", ""], []),
    ],
)
def test_what_a_word_can_become(words: list[str], found: list[str]) -> None:
    assert complete(parser(), words) == found


def test_models_are_the_gateway_s_or_else_the_file_s(gateway: Process) -> None:
    assert complete(parser(), ["chat", "--url", gateway.url, "fake/"]) == ["fake/quick", "fake/slow"]
    assert complete(parser(), ["sleep", "--level", "1", *NOBODY, "f"]) == ["filed"]
    assert complete(parser(), ["chat", *NOBODY, "filed", ""]) == []


@pytest.mark.parametrize(("shell", "check"), [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")])
def test_each_shell_can_read_its_script(shell: str, check: str) -> None:
    script = subprocess.run([DORMOUSE, "completion", shell], capture_output=True, check=True).stdout
    assert b"dormouse completion words" in script
    if shutil.which(shell):
        subprocess.run([shell, check], input=script, check=True)


def test_where_nothing_is_known_nothing_is_said() -> None:
    command = [DORMOUSE, "completion", "words", "--", "check", "--config", ""]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b""


def test_bash_completes(gateway: Process) -> None:
    asks = """
    eval "$(dormouse completion bash)"
    COMP_WORDS=(dormouse wake fake/s); COMP_CWORD=2; _dormouse; echo "${COMPREPLY[*]}"
    COMP_WORDS=(dormouse ""); COMP_CWORD=1; _dormouse; echo "${COMPREPLY[*]}"
    """
    path = f"{Path(DORMOUSE).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", asks],
        env={**os.environ, "PATH": path, "DORMOUSE_URL": gateway.url},
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    model, *verbs = done.stdout.split()
    assert model == "fake/slow"
    assert {"serve", "ps", "chat", "completion"} <= set(verbs)
