"""`dormouse simulate` from end to end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.cli import parser
from gateway.simulate.baselines import rankings
from gateway.simulate.generate import LOADS

DORMOUSE = Path(sys.executable).with_name("dormouse")
MACHINE = ("--device-memory", "40GB", "--host-memory", "60GB")


def simulate(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [DORMOUSE, "simulate", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = simulate("--generate", "bursts", "--models", "9", "--requests", "300", "--duration", "5h")
    assert made.returncode == 0, made.stderr
    path = tmp_path_factory.mktemp("traces") / "trace.jsonl"
    path.write_text(made.stdout)
    return path


def test_all_policies_in_a_table(trace: Path) -> None:
    done = simulate(str(trace), *MACHINE)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert next(line.split() for line in lines if line.strip()) == ["lru", "gds", "dormouse"]
    assert [line.split() for line in lines if "requests" in line] == [["requests", "300", "300", "300"]]
    assert done.stderr.splitlines() == ["lru, gds, dormouse ..."]


def test_one_policy_as_json_with_a_config(trace: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    sections = (f'[models.model-{n}]\npath = "maker/model-{n}"\n' for n in range(1, 10))
    config.write_text("[queue]\nmax_wait = 1\n" + "".join(sections))
    done = simulate(str(trace), "--config", str(config), "--policy", "lru", "--json", *MACHINE)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["models"] == 9
    (figures,) = result["policies"].values()
    assert figures["requests"] == 300 == figures["answered"] + sum(figures["refused"].values())
    assert figures["wait_p50"] <= figures["wait_p99"] <= figures["wait_max"] <= 1.01


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ((), "expected a TRACE"),
        (("nowhere.jsonl",), "nowhere.jsonl: cannot be read"),
        (("TRACE", "--config", "nowhere.toml"), "nowhere.toml: no such file; `dormouse init` writes one"),
        (("TRACE", "--config", "CONFIG"), "the trace asks for 'model-"),
        (("TRACE", "--costs", "nowhere.json"), "nowhere.json: cannot be read"),
        (("TRACE", "--host-memory", "1GB"), "--host-memory"),
        (("--generate", "zipf", "--duration", "never"), "--duration"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    trace: Path, tmp_path: Path, words: tuple[str, ...], complaint: str
) -> None:
    other = tmp_path / "config.toml"
    other.write_text('[models.other]\npath = "maker/other"\n')
    real = {"TRACE": str(trace), "CONFIG": str(other)}
    done = simulate(*(real.get(word, word) for word in words))
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_command_offers_all_loads_and_policies() -> None:
    """``gateway.cli`` names them itself, for it imports nothing heavy."""
    for load in LOADS:
        assert parser().parse_args(["simulate", "--generate", load]).generate == load
    assert parser().parse_args(["simulate", "t", *(f"--policy={name}" for name in rankings())])
