"""What a terminal, or a pipe, shows while a model is waited for."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from gateway.commands.waiting import Bar, Lines


def status(state: str, waiting_for: str | None, **more: Any) -> dict[str, Any]:
    return {"name": "m", "state": state, "waiting_for": waiting_for, "progress": None, **more}


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (status("cold", None), "m: waking"),
        (status("waking", "wake"), "m: waking"),
        (status("cold", "room"), "m: waiting for room in memory"),
        (status("asleep", "room"), "m: waiting for room in memory"),
        (status("draining", "turn"), "m: waiting for its turn"),
        (status("awake", "place"), "m: waiting for a place"),
        (status("awake", None), "m: thinking"),
        (status("draining", None), "m: thinking"),
    ],
)
def test_a_bar_tells_waiting_from_waking(told: dict[str, Any], words: str) -> None:
    console = Console(file=(screen := io.StringIO()), force_terminal=True, color_system=None, width=80)
    with Bar(console) as bar:
        bar.show(told)
    assert words in screen.getvalue()


def test_lines_tell_what_has_begun_once(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    read = {"progress": {"phase": "weights", "done": 0, "total": 2**30}}
    for told in (
        status("cold", None),
        status("cold", "room"),
        status("cold", "room"),
        status("waking", "wake"),
        status("waking", "wake", **read),
        status("waking", "wake", **read),
        status("awake", None),
    ):
        lines.show(told)
    assert capsys.readouterr().out == "waiting for room in memory\nloading 1.0 GiB\n"
