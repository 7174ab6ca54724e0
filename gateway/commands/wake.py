"""`dormouse wake MODEL`: shows how far the wake is, as a bar in a terminal and as plain lines elsewhere."""

from __future__ import annotations

import argparse
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, TypedDict

import rich.progress
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn

from gateway.commands import CommandError
from gateway.commands.client import Client
from gateway.units import format_bytes, format_seconds

POLL = 0.2


class Progress(TypedDict):
    phase: str
    done: int
    total: int


def run(args: argparse.Namespace) -> int:
    client, console = Client(args), Console()
    done = threading.Event()
    show = _show_bar if console.is_terminal else _show_lines
    watching = threading.Thread(target=show, args=(_progress(client, args.model, done),), daemon=True)
    watching.start()
    try:
        client.post("/wake_up", model=args.model)
    finally:
        done.set()
        watching.join(timeout=1)
    wake = _status(client, args.model)["last_wake"]
    print(f"{args.model} is awake ({format_seconds(wake['seconds'])}, {format_bytes(wake['bytes'])})")
    return 0


def _status(client: Client, name: str) -> dict[str, Any]:
    models: list[dict[str, Any]] = client.get("/api/status")["models"]
    return next(model for model in models if name in (model["name"], *model["aliases"]))


def _progress(client: Client, model: str, done: threading.Event) -> Iterator[Progress]:
    """What the gateway tells of the wake, until it is over."""
    while not done.wait(POLL):
        with suppress(CommandError, StopIteration):
            if progress := _status(client, model)["progress"]:
                yield progress


def _show_bar(steps: Iterator[Progress]) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True))
    with rich.progress.Progress(*columns, transient=True) as bar:
        task = bar.add_task("waking", total=None)
        for step in steps:
            bar.update(task, description=step["phase"], completed=step["done"], total=step["total"])


def _show_lines(steps: Iterator[Progress]) -> None:
    phase = ""
    for step in steps:
        if step["phase"] != phase:
            phase = step["phase"]
            print(f"{phase} ({format_bytes(step['total'])})", flush=True)
