"""All parts within a time: `python -m tests.bench.gpu [--dry] [--seconds N] [PART ...]`.

Each part runs in a process of its own, which is killed when its time is over, and writes what it finds
under tests/bench/results/ as it finds it. A table of all comes last. Without a GPU nothing runs, and it is
said what would.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.bench.gpu.parts import BY_NAME, PARTS, SHARED, Part
from tests.bench.gpu.result import Result, read, replace, table

RESULTS = Path(__file__).parents[1] / "results"
SECONDS = 520
"""For all parts, so that who allows nine minutes sees the table."""
_LEAST, _MARGIN, _LAST = 15, 3, 5


def plan(parts: list[Part]) -> str:
    return "\n".join(f"{part.name:9}{part.seconds:4} s at most: {part.shows}" for part in parts)


def probe() -> dict[str, Any] | str:
    """Of the machine, or why there is no GPU."""
    command = [sys.executable, "-m", "tests.bench.gpu.machine"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    except subprocess.TimeoutExpired:
        return "the driver does not answer"
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["the driver broke down"])[-1]
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts


def run(part: Part, machine: dict[str, Any], work: Path, seconds: float, path: Path) -> None:
    """In so many seconds, whatever it does."""
    path.unlink(missing_ok=True)
    command = [sys.executable, "-m", "tests.bench.gpu.part", part.name, part.module]
    command += [str(path), str(work), str(seconds)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, process_group=0)
    ended = None
    try:
        process.communicate(json.dumps(machine), timeout=seconds)
    except subprocess.TimeoutExpired:
        ended = f"out of time after {seconds:.0f} s"
    finally:
        _kill(process)
    _close(part, machine, path, ended or f"died with {process.returncode}")


def _kill(process: subprocess.Popen[str]) -> None:
    """End it, and what it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):  # who is stuck in the driver cannot be killed, nor waited for
        process.wait(_LAST)


def _close(part: Part, machine: dict[str, Any], path: Path, ended: str) -> None:
    """Have the file say how the part ended, if it could not itself."""
    found = read(path)
    if not found:
        Result(path, part.name, machine, 0).end(ended)
    elif found["ended"] == "running":
        replace(path, {**found, "ended": ended})


def run_all(
    parts: list[Part], machine: dict[str, Any], seconds: float, results: Path
) -> list[dict[str, Any]]:
    """What each has found."""
    deadline = time.monotonic() + seconds
    work = Path(tempfile.mkdtemp(prefix="dormouse-gpu-"))
    paths = {part.name: results / f"gpu-{part.name}.json" for part in parts}
    try:
        for part in parts:
            left = deadline - time.monotonic() - _MARGIN
            print(f"{part.name}: {part.shows}", flush=True)
            if left < _LEAST:
                paths[part.name].unlink(missing_ok=True)
                _close(part, machine, paths[part.name], "no time was left")
            else:
                run(part, machine, work, min(part.seconds, left), paths[part.name])
    finally:
        shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(SHARED / work.name, ignore_errors=True)
    return [read(path) for path in paths.values()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(BY_NAME)}; all")
    parser.add_argument("--dry", action="store_true", help="say what would run")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(BY_NAME)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    began = time.monotonic()
    parts = [part for part in PARTS if part.name in arguments.parts or not arguments.parts]
    machine = "asked to stay dry" if arguments.dry else probe()
    if isinstance(machine, str):
        print(f"nothing is run ({machine}); with a GPU, in {arguments.seconds:.0f} s at most:\n{plan(parts)}")
        return
    print(f"{machine['gpu']}, driver {machine['driver']}, torch {machine['packages']['torch']}", flush=True)
    arguments.results.mkdir(parents=True, exist_ok=True)
    seconds = arguments.seconds - (time.monotonic() - began)
    found = run_all(parts, machine, seconds, arguments.results)
    print(f"\n{machine['gpu']}, commit {machine['commit'][:12]}\n{table(found)}")
    missed = sum(not number.get("ok", True) for result in found for number in result["numbers"].values())
    undone = sum(result["ended"] != "done" for result in found)
    failed = sum(len(result["failures"]) for result in found)
    print(f"{missed} numbers are not as wanted, {failed} failures, {undone} of {len(found)} parts unfinished")
    sys.exit(bool(missed or failed or undone))


if __name__ == "__main__":
    main()
