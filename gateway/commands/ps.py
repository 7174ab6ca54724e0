"""`dormouse ps`: one line a model."""

from __future__ import annotations

import argparse
import json
from typing import Any

from rich.console import Console
from rich.table import Table

from gateway.commands.client import Client
from gateway.units import format_bytes, format_seconds

COLUMNS = ("MODEL", "STATE", "SINCE", "IN FLIGHT", "QUEUED", "DEVICE", "HOST", "SLEEPS IN")


def run(args: argparse.Namespace) -> int:
    status = Client(args).get("/api/status")
    if args.json:
        print(json.dumps(status))
        return 0
    rows = [_row(model) for model in status["models"]]
    console = Console()
    if console.is_terminal:
        table = Table(*COLUMNS, box=None, pad_edge=False, header_style="bold")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    else:
        _print_plain([COLUMNS, *rows])
    return 0


def _row(model: dict[str, Any]) -> tuple[str, ...]:
    level = model["level"]
    return (
        model["name"],
        f"{model['state']} ({level})" if level else model["state"],
        _ago(model["state_seconds"]),
        str(model["in_flight"]),
        str(model["queued"]),
        format_bytes(model["device_bytes"]),
        format_bytes(model["host_bytes"]),
        _ago(model["sleeps_in_seconds"]),
    )


def _ago(seconds: float | None) -> str:
    return "-" if seconds is None else format_seconds(seconds)


def _print_plain(rows: list[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
