"""`dormouse pull MODEL`: its files into the Hugging Face cache, so that no wake has to wait for them."""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from queue import Empty, SimpleQueue

from rich.console import Console
from rich.live import Live

import engine
from gateway.commands import INTERRUPTED, CommandError
from gateway.commands.progress import ProgressBar, Step
from gateway.config import ModelConfig
from gateway.config_file import ConfigError, load_config
from gateway.config_text import locate
from gateway.near import nearest
from gateway.units import format_bytes

POLL = 0.1


def run(args: argparse.Namespace) -> int:
    model = _named(args.model, args.config)
    download = _Download(model)
    try:
        _show(download, Console(), quiet=args.json)
    except KeyboardInterrupt:
        print(f"{model.path}: stopped; what is whole stays, and is not fetched again", file=sys.stderr)
        sys.stderr.flush()
        os._exit(INTERRUPTED)  # leaving through the interpreter would wait for the download's threads
    if isinstance(download.error, engine.CheckpointError):
        raise CommandError(str(download.error))
    if download.error:
        raise download.error
    if args.json:
        print(json.dumps({"model": model.name, "path": model.path, "directory": download.directory}))
    else:
        print(f"{model.name} is here: {download.directory}")
    return 0


class _Download:
    """Under way in a thread of its own."""

    def __init__(self, model: ModelConfig) -> None:
        self.directory: str | None = None
        self.error: Exception | None = None
        self.steps: SimpleQueue[Step | None] = SimpleQueue()
        """None: it is over."""
        self._model = model
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            self.directory = engine.download(self._model.path, self._model.revision, self._tell)
        except Exception as error:
            self.error = error
        finally:
            self.steps.put(None)

    def _tell(self, done: int, total: int) -> None:
        self.steps.put({"phase": "download", "done": done, "total": total})


def _show(download: _Download, console: Console, *, quiet: bool) -> None:
    """A bar in a terminal, a line elsewhere, until it is over."""
    bar, told = ProgressBar(console), False
    bar.show({"phase": "download", "done": 0, "total": 0})
    with ExitStack() as shown:
        if console.is_terminal and not quiet:
            shown.enter_context(Live(bar, console=console, transient=True))
        while step := _next(download.steps):
            if step["total"]:
                bar.show(step)
                if not (console.is_terminal or quiet or told):
                    print(f"downloading {format_bytes(step['total'])}", flush=True)
                told = True


def _next(steps: SimpleQueue[Step | None]) -> Step | None:
    """Waits in small pieces, so that Ctrl-C is heard."""
    while True:
        try:
            return steps.get(timeout=POLL)
        except Empty:
            continue


def _named(name: str, file: Path) -> ModelConfig:
    """Of the configuration, or a hub id."""
    try:
        config = load_config(file).models if file.exists() else ()
    except ConfigError as error:
        raise CommandError(str(error), exit_code=2) from None
    for model in config:
        if name in (model.name, model.path, *model.aliases):
            return model
    try:
        return ModelConfig(name=name, path=locate(name, Path.cwd()))
    except ValueError:
        near = nearest(name, (model.name for model in config))
        meant = f"; did you mean {near}?" if near else ""
        absent = "" if file.exists() else f"; there is no {file}, and `dormouse init` writes one"
        raise CommandError(f"{name} is neither in {file} nor a hub id (owner/name){meant}{absent}") from None
