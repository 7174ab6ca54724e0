"""``make gpu`` where there is no GPU, and what its runner does with parts that behave in any way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.bench.gpu.__main__ import run, run_all
from tests.bench.gpu.parts import PARTS, Part
from tests.bench.gpu.result import Result, read, table

ROOT = Path(__file__).parents[1]
MACHINE = {"gpu": "none"}
SOURCES = {
    "good": (
        "def measure(result, work):\n"
        "    result.number('speed', 3.5, least=3)\n"
        "    result.check('right', False)\n"
    ),
    "broken": "def measure(result, work):\n    result.number('speed', 1)\n    raise ValueError('no')\n",
    "dying": "import os\ndef measure(result, work):\n    os._exit(3)\n",
    "endless": (
        "import subprocess, sys, time\n"
        "def measure(result, work):\n"
        "    child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "    result.number('child', child.pid)\n"
        "    time.sleep(60)\n"
    ),
}


@pytest.fixture
def part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a part of one of these sources."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))

    def make(name: str, seconds: int = 20) -> Part:
        (tmp_path / f"part_{name}.py").write_text(SOURCES[name])
        return Part(name, f"part_{name}", seconds, "something")

    return make


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="there may be a GPU, which it would use")
def test_without_a_gpu_it_says_what_it_would_run() -> None:
    command = ["make", "--silent", "gpu", f"PYTHON={sys.executable}"]
    before = sorted((ROOT / "tests/bench/results").iterdir())
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    head, *lines = done.stdout.splitlines()
    assert "nothing is run (no such device here: cuda" in head
    assert [line.split()[0] for line in lines] == [part.name for part in PARTS]
    assert all(part.shows in line for part, line in zip(PARTS, lines, strict=True))
    assert sorted((ROOT / "tests/bench/results").iterdir()) == before


def test_parts_run_in_turn_and_tell_how_they_ended(part: Any, tmp_path: Path) -> None:
    found = run_all([part("good"), part("broken"), part("dying")], MACHINE, 60, tmp_path)
    assert [one["ended"] for one in found] == ["done", "failed", "died with 3"]
    good, broken, dying = found
    assert good["numbers"]["speed"] == {"value": 3.5, "least": 3, "ok": True}
    assert good["numbers"]["right"]["ok"] is False
    assert broken["numbers"] == {"speed": {"value": 1}}
    assert broken["notes"] == ["broken: ValueError: no"]
    assert "raise ValueError('no')" in broken["failures"]["broken"]
    assert dying["machine"] == MACHINE
    shown = table(found).splitlines()
    assert [line.split()[0] for line in shown if line[0] != " "] == ["part", "good", "broken", "dying"]
    assert [line.split()[0] for line in shown if "MISSED" in line] == ["right"]


def test_a_part_is_ended_in_time_with_what_it_has_started(part: Any, tmp_path: Path) -> None:
    path = tmp_path / "endless.json"
    began = time.monotonic()
    run(part("endless"), MACHINE, tmp_path, 2, path)
    assert time.monotonic() - began < 10
    found = read(path)
    assert found["ended"] == "out of time after 2 s"
    child = Path(f"/proc/{found['numbers']['child']['value']}/stat")
    while not is_gone(child):  # it has been killed, and may take a moment to die of it
        assert time.monotonic() - began < 20
        time.sleep(0.05)


def is_gone(process: Path) -> bool:
    try:
        return process.read_text().split()[2] == "Z"
    except OSError:
        return True


def test_what_there_is_no_time_for_is_left_out_and_an_older_result_with_it(part: Any, tmp_path: Path) -> None:
    Result(tmp_path / "gpu-good.json", "good", {"gpu": "another"}, 1).end("done")
    (found,) = run_all([part("good")], MACHINE, 5, tmp_path)
    assert (found["ended"], found["numbers"], found["machine"]) == ("no time was left", {}, MACHINE)


def test_parts_are_there_and_fit_the_time_that_is_given() -> None:
    import importlib

    assert [part.name for part in PARTS[:2]] == ["memory", "kernels"]
    assert sum(part.seconds for part in PARTS[:5]) < 520, "the first five run whatever the first four take"
    for part in PARTS:
        if part.name != "kernels":  # which needs Triton
            assert importlib.import_module(part.module).measure


def test_what_was_found_survives_a_death_in_the_middle_of_a_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = Result(tmp_path / "found.json", "memory", MACHINE, 9)
    result.number("speed", 1)

    def die(self: Path, text: str) -> None:
        with self.open("w") as file:
            file.write(text[:20])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", die)
    with pytest.raises(KeyboardInterrupt):
        result.number("size", 2)
    assert read(result.path)["numbers"] == {"speed": {"value": 1}}


def test_the_file_says_what_a_result_is(tmp_path: Path) -> None:
    result = Result(tmp_path / "one.json", "one", MACHINE, 9)
    result.number("most", 2, most=1)
    result.note("left out")
    content = json.loads((tmp_path / "one.json").read_text())
    assert content.keys() == {"part", "ended", "seconds", "machine", "numbers", "notes", "failures"}
    assert (content["ended"], content["notes"]) == ("running", ["left out"])
    assert content["numbers"]["most"] == {"value": 2, "most": 1, "ok": False}
