"""What is shown of the models that are woken at start."""

from __future__ import annotations

import io
import logging
from typing import cast

import pytest
from rich.console import Console

from engine import Progress
from gateway.commands.starting import Starting
from gateway.fleet import ModelStatus
from gateway.logs import StderrHandler

SHOW_CURSOR = "\x1b[?25h"


class Model:
    """As much of a status as is looked at."""

    def __init__(self, name: str, progress: Progress | None) -> None:
        self.name = name
        self.progress = progress


def models(phase: str | None, done: int = 0) -> list[ModelStatus]:
    progress = Progress(phase=phase, done=done, total=2**30) if phase else None
    return cast(list[ModelStatus], [Model("mouse", progress), Model("asleep", None)])


def test_in_a_log_each_phase_is_a_line(caplog: pytest.LogCaptureFixture) -> None:
    starting = Starting(Console(file=io.StringIO()))
    with caplog.at_level(logging.INFO):
        for phase in (None, "download", "download", "weights"):
            starting(models(phase))
        starting(())
    assert caplog.messages == ["mouse: downloading 1.0 GiB", "mouse: loading 1.0 GiB"]


def test_in_a_terminal_bars_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr("sys.stderr", screen)
    starting = Starting(Console(stderr=True, force_terminal=True, width=100))
    starting(models(None))
    assert screen.getvalue() == ""
    starting(models("download", done=2**29))
    StderrHandler().emit(logging.makeLogRecord({"msg": "something else"}))
    starting(())
    shown = screen.getvalue()
    assert "mouse downloading" in shown and "512.0 MiB of 1.0 GiB" in shown
    assert "something else\n" in shown
    assert shown.rindex(SHOW_CURSOR) > shown.rindex("downloading")
