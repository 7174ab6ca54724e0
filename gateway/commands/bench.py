"""`dormouse bench`: the project's own benchmarks, tables for people and then one JSON line for programs.

The tables fit 80 columns; progress goes to standard error.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.bench import switch
from gateway.commands import CommandError
from gateway.units import format_bytes


def run(args: argparse.Namespace) -> int:
    for path in (args.out, args.into):
        if not list(Path(path).glob("*.safetensors")):
            raise CommandError(f"{path}: not a directory with safetensors files")
    result = asyncio.run(switch.measure(args.out, args.into, args.rounds, _report))
    if not args.json:
        _show(result)
    print(json.dumps(result))
    return 0


def _show(result: dict[str, Any]) -> None:
    console = Console(highlight=False)
    # Each mode was measured both ways, one after the other.
    for one_way in (result["switches"][0::2], result["switches"][1::2]):
        console.print(_table(one_way, result["cold_starts"][one_way[0]["model"]]))


def _report(line: str) -> None:
    sys.stderr.write(line + "\n")


def _table(switches: list[dict[str, Any]], cold: dict[str, Any]) -> Table:
    """The switches to one model: a column for each mode, a row for each figure."""
    title = Text(f"switch to {Path(switches[0]['model']).absolute().name}")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column()
    for row in switches:
        table.add_column(row["mode"].replace(", ", ",\n"), justify="right", no_wrap=True)
    for name in ("sleep", "wake", "first_token", "total"):
        table.add_row(name.replace("_", " "), *(_seconds(row[name]) for row in switches))
    table.add_row("weights read", *(format_bytes(row["bytes"]) if row["bytes"] else "-" for row in switches))
    table.add_row("GB/s", *(f"{row['gb_per_s']:.1f}" if row["gb_per_s"] else "-" for row in switches))
    table.add_section()
    table.add_row(
        f"vs cold start, {_seconds(cold['dormouse']['total'])}",
        *_ratios(switches, "times_faster_than_cold_start"),
    )
    theirs = cold["transformers"]
    figure = _seconds(theirs["load"] + theirs["first_token"]) if isinstance(theirs, dict) else theirs
    table.add_row(
        Text(f"vs from_pretrained + token, {figure}"),
        *_ratios(switches, "times_faster_than_from_pretrained"),
    )
    return table


def _ratios(switches: list[dict[str, Any]], name: str) -> list[str]:
    return [f"{row[name]:.1f}x" if name in row else "-" for row in switches]


def _seconds(value: float) -> str:
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.2f} s"
