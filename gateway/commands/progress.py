"""How far a download or a wake has come: a bar with bytes, rate and time left."""

from __future__ import annotations

from typing import Any, Final, TypedDict

from rich.console import Console, RenderableType
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn
from rich.progress import Progress as Bars
from rich.text import Text

from gateway.units import format_bytes, format_seconds

WORDS: Final = {"download": "downloading", "weights": "loading"}
"""What the engine's phases are called."""
WIDTH: Final = 20


class Step(TypedDict):
    """What /api/status tells of what is under way."""

    phase: str
    done: int
    total: int


class Amounts(ProgressColumn):
    """``1.2 GiB of 4.0 GiB, 310.0 MiB/s, 9s left``"""

    max_refresh = None

    def render(self, task: Task) -> Text:
        if not task.total:
            return Text("")
        told = [f"{format_bytes(int(task.completed))} of {format_bytes(int(task.total))}"]
        if task.speed:
            told.append(f"{format_bytes(int(task.speed))}/s")
        if task.time_remaining is not None and not task.finished:
            told.append(f"{format_seconds(task.time_remaining)} left")
        return Text(", ".join(told))


class ProgressBar:
    """Of one model. Each phase has a bar and a rate of its own."""

    def __init__(self, console: Console, label: str = "") -> None:
        self._label = label
        columns: Any = (TextColumn("{task.description}", markup=False), BarColumn(WIDTH), Amounts())
        self._bars = Bars(*columns, console=console, auto_refresh=False)
        self._phase: str | None = None
        self._task = self._bars.add_task("")

    def show(self, step: Step) -> None:
        if step["phase"] != self._phase:
            self._phase = step["phase"]
            self._bars.remove_task(self._task)
            doing = WORDS.get(step["phase"], step["phase"])
            self._task = self._bars.add_task(f"{self._label} {doing}".strip(), total=None)
        self._bars.update(self._task, completed=step["done"], total=step["total"] or None)

    def __rich__(self) -> RenderableType:
        return self._bars.get_renderable()
