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
from tests.terminal import Terminal

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
        (["completion", ""], ["bash", "zsh", "fish"]),
        (["pull", "--", "f"], ["filed"]),
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


def words(*typed: str) -> list[str]:
    command = [DORMOUSE, "completion", "words", "--", *typed]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout.split()


def test_where_nothing_is_known_nothing_is_said() -> None:
    assert words("check", "--config", "") == []


def test_two_dashes_are_the_user_s() -> None:
    assert words("ps", "--") == ["--help", "--url", "--api-key", "--watch", "--json"]
    assert words("--") == ["--help", "--version"]
    assert words("pull", "--", "") == ["filed", "other"]
    assert "serve" in words()


def test_how_the_scripts_ask_is_not_told() -> None:
    done = subprocess.run([DORMOUSE, "completion", "tcsh"], capture_output=True, text=True)
    assert (done.returncode, "bash" in done.stderr, "words" in done.stderr) == (2, True, False)


def test_bash_completes(gateway: Process) -> None:
    Path("config.toml").write_text('[models."small:1b"]\n[models."small:7b"]\n[models."large:70b"]\n')
    Path("inputrc").write_text("set bell-style none\n")
    environment = {
        "PATH": f"{Path(DORMOUSE).parent}:{os.environ['PATH']}",
        "DORMOUSE_URL": gateway.url,
        "PS1": "$ ",
        "INPUTRC": "inputrc",
    }
    with Terminal("bash", "--norc", "--noprofile", **environment) as bash:
        bash.type('before=$COMP_WORDBREAKS; eval "$(dormouse completion bash)"\n')
        bash.expect("$ before=")
        for typed, completed in (
            ("wake fake/s", "low "),
            ("pull lar", "ge:70b "),
            ("pull large:", "70b "),
            ("pull large:7", "0b "),
            ("sleep --url=http://127.0.0.1:9 sm", "all:"),
        ):
            bash.type(f"dormouse {typed}\t")
            bash.expect(f"dormouse {typed}{completed}")
            bash.type("\x15")
        bash.type("dormouse chat --\t\t")
        bash.expect("--help")
        bash.expect("--json")
        bash.type("\x15")
        bash.type('[[ $COMP_WORDBREAKS == "$before" ]] && echo the"same"\n')
        bash.expect("thesame")
