"""`dormouse ps --watch`: the status again and again, through restarts of the gateway."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, Final

from rich.console import Console
from rich.live import Live

from gateway.commands.client import Client, Unreachable
from gateway.commands.keys import single_keys
from gateway.commands.status_table import StatusTable

QUIET, BUSY = 0.5, 0.1
"""Seconds between two looks; the second while something is under way."""
MOVING: Final = ("waking", "draining")
_TELLING: Final = ("name", "state", "level", "in_flight", "queued", "last_error")


def watch_table(client: Client, console: Console) -> None:
    """In a terminal: a live table, until q or Ctrl-C."""
    status = client.get("/api/status")
    table = StatusTable(console)
    live = Live(console=console, auto_refresh=False)
    with single_keys() as wait, live:
        complaint = None
        while True:
            live.update(table.render(status, complaint), refresh=True)
            if "q" in wait(BUSY if _is_moving(status) else QUIET):
                return
            try:
                status, complaint = client.get("/api/status"), None
            except Unreachable:
                complaint = _gone(client)


def watch_lines(client: Client, told: Callable[[dict[str, Any]], str]) -> None:
    """Elsewhere: the whole whenever it has changed, until Ctrl-C."""
    status, seen = client.get("/api/status"), None
    gone = False
    while True:
        if (now := _telling(status)) != seen:
            seen = now
            print(told(status), flush=True)
        time.sleep(BUSY if _is_moving(status) else QUIET)
        try:
            status, gone = client.get("/api/status"), False
        except Unreachable:
            if not gone:
                print(_gone(client), file=sys.stderr, flush=True)
            gone = True


def _gone(client: Client) -> str:
    return f"the gateway at {client.url} does not answer; trying again"


def _telling(status: dict[str, Any]) -> list[list[Any]]:
    """What a change is, other than of the times that go by."""
    return [[model[key] for key in _TELLING] for model in status["models"]]


def _is_moving(status: dict[str, Any]) -> bool:
    return any(model["state"] in MOVING or model["in_flight"] for model in status["models"])
