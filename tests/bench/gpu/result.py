"""What a part has found: a JSON file that is written anew with every number, so that nothing is lost."""

from __future__ import annotations

import json
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Result:
    path: Path
    part: str
    machine: dict[str, Any]
    limit: float
    """Seconds that the part has."""
    began: float = field(default_factory=time.monotonic)
    numbers: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    """Tracebacks, by what failed."""
    ended: str = "running"

    @property
    def left(self) -> float:
        """Seconds."""
        return self.limit - (time.monotonic() - self.began)

    def number(
        self, name: str, value: float, *, least: float | None = None, most: float | None = None
    ) -> None:
        """``least``, ``most``: what is wanted, where something is."""
        found: dict[str, Any] = {"value": value}
        if least is not None:
            found |= {"least": least, "ok": value >= least}
        if most is not None:
            found |= {"most": most, "ok": value <= most and found.get("ok", True)}
        self.numbers[name] = found
        self.write()

    def check(self, name: str, passed: bool) -> None:
        self.number(name, float(passed), least=1.0)

    def failure(self, name: str, error: BaseException) -> None:
        """Told in one line, and kept whole."""
        traceback.print_exception(error)
        self.failures[name] = "".join(traceback.format_exception(error))
        self.note(f"{name}: {type(error).__name__}: {error}".splitlines()[0][:160])

    def note(self, text: str) -> None:
        self.notes.append(text)
        print(f"  {text}", flush=True)
        self.write()

    def end(self, how: str) -> None:
        self.ended = how
        self.write()

    def write(self) -> None:
        content = {
            "part": self.part,
            "ended": self.ended,
            "seconds": round(time.monotonic() - self.began, 1),
            "machine": self.machine,
            "numbers": self.numbers,
            "notes": self.notes,
            "failures": self.failures,
        }
        replace(self.path, content)


def replace(path: Path, content: dict[str, Any]) -> None:
    """At once: who is killed meanwhile leaves what was there before."""
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(content, indent=1) + "\n")
    unfinished.replace(path)


def read(path: Path) -> dict[str, Any]:
    """Of a part that ran, or began to; else nothing."""
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content


def table(results: list[dict[str, Any]]) -> str:
    lines = [f"{'part':9}{'number':50}{'found':>14}  wanted"]
    for result in results:
        lines.append(f"{result['part']:9}{result['ended']} after {result['seconds']:.0f} s")
        lines += [_line(name, found) for name, found in result["numbers"].items()]
        lines += [f"{'':9}  {note}" for note in result["notes"]]
    return "\n".join(lines)


def _line(name: str, found: dict[str, Any]) -> str:
    wanted = " and ".join(
        f"{sign} {found[key]:g}" for key, sign in (("least", ">="), ("most", "<=")) if key in found
    )
    verdict = "" if "ok" not in found else "" if found["ok"] else "  MISSED"
    return f"{'':9}{name:50}{found['value']:14.6g}  {wanted}{verdict}"
