"""What is shown while a model is waited for: what it waits for itself, how far its wake has come."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner

from gateway.commands import CommandError
from gateway.commands.client import Client
from gateway.commands.progress import WORDS, ProgressBar
from gateway.units import format_bytes

POLL: Final = 0.1
_WAITING_FOR: Final = {
    "opening": "opening the model",
    "wake": "waking",
    "room": "waiting for room in memory",
    "turn": "waiting for its turn",
    "place": "waiting for a place",
}

Show = Callable[[dict[str, Any]], None]
"""Is given what /api/status tells of the model."""


class Waiting:
    """Shows, from another thread, until the context ends or ``stop`` is called."""

    def __init__(self, client: Client, model: str, show: Show) -> None:
        self._client = client
        self._model = model
        self._show = show
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(POLL):
            with suppress(CommandError):  # whoever waits is told
                status = self._client.status_of(self._model)
                if not self._over.is_set():
                    self._show(status)


class Bar:
    """For a terminal; it leaves nothing behind."""

    def __init__(self, console: Console) -> None:
        self._bar = ProgressBar(console)
        self._spinner = Spinner("dots", "...")
        self._live = Live(self._spinner, console=console, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, status: dict[str, Any]) -> None:
        self._spinner.update(text=f"{status['name']}: {_doing(status)}")
        if status["progress"]:
            self._bar.show(status["progress"])
            self._live.update(Group(self._spinner, self._bar))
        else:
            self._live.update(self._spinner)


class Lines:
    """For everything that is not a terminal: a line whenever a phase, or a wait for room, begins."""

    def __init__(self) -> None:
        self._phase = ""

    def show(self, status: dict[str, Any]) -> None:
        step = status["progress"]
        phase = step["phase"] if step else status["waiting_for"]
        if phase == self._phase or not (step or phase == "room"):
            return
        self._phase = phase
        words = f"{WORDS.get(phase, phase)} {format_bytes(step['total'])}" if step else _doing(status)
        print(words, flush=True)


def _doing(status: dict[str, Any]) -> str:
    if waiting_for := status["waiting_for"]:
        return _WAITING_FOR[waiting_for]
    return "thinking" if status["state"] in ("awake", "draining") else "waking"
