"""`dormouse wake MODEL`: shows how far the wake is, as a bar in a terminal and as plain lines elsewhere."""

from __future__ import annotations

import argparse
import json
from contextlib import ExitStack

from rich.console import Console

from gateway.commands.client import Client
from gateway.commands.waiting import Bar, Lines, Waiting
from gateway.units import format_bytes, format_seconds


def run(args: argparse.Namespace) -> int:
    client, console = Client(args), Console()
    with ExitStack() as shown:
        if not args.json:
            show = shown.enter_context(Bar(console)).show if console.is_terminal else Lines().show
            shown.enter_context(Waiting(client, args.model, show))
        client.post("/wake_up", model=args.model)
    status = client.status_of(args.model)
    wake = status["last_wake"]
    if args.json:
        print(json.dumps({"model": status["name"], **wake}))
    else:
        print(f"{args.model} is awake ({format_seconds(wake['seconds'])}, {format_bytes(wake['bytes'])})")
    return 0
