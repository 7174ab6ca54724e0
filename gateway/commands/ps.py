"""`dormouse ps`: one line a model, once or until told to stop."""

from __future__ import annotations

import argparse
import json
from typing import Any

from rich.console import Console

from gateway.commands.client import Client
from gateway.commands.status_table import StatusTable, plain
from gateway.commands.watch import watch_lines, watch_table


def run(args: argparse.Namespace) -> int:
    client, console = Client(args), Console(highlight=False)
    if args.watch and console.is_terminal and not args.json:
        watch_table(client, console)
    elif args.watch:
        watch_lines(client, json.dumps if args.json else _plain)
    else:
        status = client.get("/api/status")
        if args.json:
            print(json.dumps(status))
        elif console.is_terminal:
            console.print(StatusTable(console).render(status))
        else:
            print(_plain(status))
    return 0


def _plain(status: dict[str, Any]) -> str:
    return plain(status["models"])
