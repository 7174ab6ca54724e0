"""How far the models have come that are woken at start, while nobody can be answered yet."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from typing import cast

from rich.console import Console, Group
from rich.live import Live

from gateway.commands.progress import WORDS, ProgressBar, Step
from gateway.fleet import ModelStatus
from gateway.units import format_bytes

logger = logging.getLogger(__name__)


class Starting:
    """Is told the status again and again, and nothing when all is done. In a terminal bars show it, beneath
    what is logged; elsewhere the log tells of each phase."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars: dict[str, ProgressBar] = {}
        self._phases: dict[str, str] = {}
        self._live: Live | None = None

    def __call__(self, models: Sequence[ModelStatus]) -> None:
        steps = {model.name: cast(Step, asdict(model.progress)) for model in models if model.progress}
        if self._console.is_terminal:
            self._draw(steps)
        else:
            self._log(steps)

    def _draw(self, steps: dict[str, Step]) -> None:
        for name, step in steps.items():
            bar = self._bars.setdefault(name, ProgressBar(self._console, name))
            bar.show(step)
        if steps:
            if self._live is None:
                self._live = Live(console=self._console, transient=True)
                self._live.start()
            self._live.update(Group(*(self._bars[name] for name in steps)))
        elif self._live is not None:
            self._live.stop()
            self._live = None

    def _log(self, steps: dict[str, Step]) -> None:
        for name, step in steps.items():
            if step["total"] and step["phase"] != self._phases.get(name):
                self._phases[name] = step["phase"]
                doing = WORDS.get(step["phase"], step["phase"])
                logger.info("%s: %s %s", name, doing, format_bytes(step["total"]))
