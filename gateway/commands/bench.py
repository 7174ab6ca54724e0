"""`dormouse bench`: the project's own benchmarks, a table for people and one JSON line for programs."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from gateway.bench import switch
from gateway.commands import CommandError
from gateway.units import format_bytes


def run(args: argparse.Namespace) -> int:
    for path in (args.out, args.into):
        if not list(Path(path).glob("*.safetensors")):
            raise CommandError(f"{path}: not a directory with safetensors files")
    result = asyncio.run(switch.measure(args.out, args.into, args.rounds, _report))
    Console(soft_wrap=True).print(_table(result))
    print(json.dumps(result))
    return 0


def _report(line: str) -> None:
    sys.stderr.write(line + "\n")


def _table(result: dict[str, Any]) -> Table:
    table = Table(title="sleep(out) + wake(in) + first token, against a cold start", title_justify="left")
    columns = ("", "into", "bytes", "sleep", "wake", "GB/s", "first token", "total", "cold start", "ratio",
               "from_pretrained + token", "ratio")  # fmt: skip
    for column in columns:
        table.add_column(column, justify="left" if column in ("", "into") else "right")
    for row in result["switches"]:
        cold = result["cold_starts"][row["model"]]
        theirs = cold["transformers"]
        table.add_row(
            row["mode"],
            Path(row["model"]).name,
            format_bytes(row["bytes"]),
            *(_seconds(row[name]) for name in ("sleep", "wake")),
            f"{row['gb_per_s']:.1f}" if row["gb_per_s"] else "-",
            *(_seconds(row[name]) for name in ("first_token", "total")),
            _seconds(cold["dormouse"]["total"]),
            f"{row['times_faster_than_cold_start']:.0f}x",
            _seconds(theirs["load"] + theirs["first_token"]) if isinstance(theirs, dict) else theirs,
            f"{row['times_faster_than_from_pretrained']:.0f}x" if isinstance(theirs, dict) else "-",
        )
    return table


def _seconds(value: float) -> str:
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.2f} s"
