"""`dormouse bench switch` on two tiny checkpoints: what it prints, and where."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec import convert

from gateway import cli
from gateway.bench import switch
from gateway.bench.switch import MODES
from gateway.simulate.costs import Costs
from tests.bench.random_checkpoint import write_checkpoint

DORMOUSE = Path(sys.executable).with_name("dormouse")
PHASES = ("sleep", "wake", "first_token")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = tmp_path_factory.mktemp("checkpoints")
    shape = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "vocab_size": 4096}
    # A long name must not widen the tables.
    return [
        str(write_checkpoint(root / name, "60m", seed=seed, **shape))
        for seed, name in enumerate(("short", "long-" * 20))
    ]


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [DORMOUSE, "bench", "switch", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )


def test_each_mode_is_measured_both_ways_and_compared_with_cold_starts(checkpoints: list[str]) -> None:
    done = bench(*checkpoints, "--rounds", "1")
    assert done.returncode == 0, done.stderr
    *table, last = done.stdout.splitlines()
    assert sum("first token" in line for line in table) == 2
    assert max(map(len, table)) <= 80
    assert "level 1 ..." in done.stderr.splitlines()
    assert not [line for line in table if line.endswith("...")]

    result = json.loads(last)
    costs = convert(result["costs"], Costs, str_keys=True)
    assert min(costs.tokens_per_second.values()) > 0
    assert costs.level_1.bytes_per_second is None
    assert costs.level_2.bytes_per_second and costs.weights_bytes
    switches = {(row["mode"], row["model"]): row for row in result["switches"]}
    assert len(result["switches"]) == len(switches)
    assert set(switches) == set(itertools.product((mode.name for mode in MODES), checkpoints))
    for (mode, path), row in switches.items():
        assert row["total"] == pytest.approx(sum(row[phase] for phase in PHASES))
        assert min(row[phase] for phase in PHASES) > 0
        assert (row["bytes"] > 0) == (mode != "level 1")
        cold = result["cold_starts"][path]
        ours, theirs = cold["dormouse"], cold["transformers"]
        assert 0 < ours["open"] + ours["load"] + ours["first_token"] < ours["total"]
        assert 0 < theirs["load"] + theirs["first_token"] < theirs["total"]
        assert row["times_faster_than_cold_start"] == pytest.approx(ours["total"] / row["total"])
        theirs_to_token = theirs["load"] + theirs["first_token"]
        assert row["times_faster_than_from_pretrained"] == pytest.approx(theirs_to_token / row["total"])


def test_a_directory_without_weights_is_refused_in_one_line(checkpoints: list[str], tmp_path: Path) -> None:
    message = f"{tmp_path}: not a directory with safetensors files"
    done = bench(checkpoints[0], str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"{message}\n")
    done = bench(checkpoints[0], str(tmp_path), "--json")
    assert json.loads(done.stdout)["error"]["message"] == message


def test_programs_are_given_the_json_line_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    async def measured(*_: object) -> dict[str, Any]:
        return {"switches": []}

    (tmp_path / "model.safetensors").touch()
    monkeypatch.setattr(switch, "measure", measured)
    with pytest.raises(SystemExit):
        cli.main(["bench", "switch", str(tmp_path), str(tmp_path), "--json"])
    assert capsys.readouterr().out == '{"switches": []}\n'
