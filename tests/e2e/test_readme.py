"""The README's own lines, run as they stand against the configuration that comes with the repository."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.config_file import load_config
from tests.e2e.server import Server, serving_the_demo

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


def test_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(block("toml", "[models."))
    assert load_config(path).models[0].aliases == ("gpt-4o-mini",)


def test_fits_on_one_screen() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 110
