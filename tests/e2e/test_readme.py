"""The README's own lines, run as they stand against the configuration that comes with the repository."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.cli import parser
from gateway.config_file import load_config
from tests.e2e.server import DORMOUSE, Server, serving_the_demo

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving_the_demo(tmp_path_factory.mktemp("readme")) as server:
        yield server


def block(language: str, containing: str) -> str:
    blocks = re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    found: str = next(block for block in blocks if containing in block)
    return found


def test_the_curl_line(server: Server) -> None:
    line = block("sh", "curl").replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")
    printed = subprocess.run(["bash", "-ec", line], capture_output=True, text=True, check=True).stdout
    answer = json.loads(printed)["choices"][0]["message"]["content"]
    assert "level" in answer or "asleep" in answer or "sleep" in answer


def test_the_sdk_lines(server: Server) -> None:
    program = block("python", "OpenAI").replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "12" in printed.stdout


def commands() -> list[str]:
    """Those between backquotes, as they stand."""
    spans = re.findall(r"`(dormouse [^`]+)`", (ROOT / "README.md").read_text())
    return [" ".join(span.split()) for span in spans]


@pytest.mark.parametrize("command", commands())
def test_commands_are_ones(command: str) -> None:
    words, _, _ = command.partition(" > ")
    parser().parse_args(shlex.split(words)[1:])


def test_commands_run_in_a_checkout(server: Server, tmp_path: Path) -> None:
    """One after another, beside the demo's config.toml; but for those that serve or take long."""
    (tmp_path / "config.toml").write_bytes((ROOT / "config.toml").read_bytes())
    (tmp_path / "engine").symlink_to(ROOT / "engine")
    environment = {**os.environ, "DORMOUSE_URL": server.url, "HF_HOME": str(tmp_path / "hub")}
    found = [shlex.split(command) for command in commands()]
    run = [words for words in found if words[1] not in ("serve", "bench", "simulate")]
    assert {words[1] for words in run} == {"ps", "chat", "wake", "sleep", "init", "check"}
    for _, *words in run:
        done = subprocess.run(
            [DORMOUSE, *words],
            input="What is 7 plus 5?" if words[0] == "chat" else "",
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, ""), words
        assert done.stdout


def test_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(block("toml", "[models."))
    assert load_config(path).models[0].aliases == ("gpt-4o-mini",)


def test_fits_on_one_screen() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 110
