"""`dormouse sleep MODEL`."""

from __future__ import annotations

import argparse

from gateway.commands.client import Client


def run(args: argparse.Namespace) -> int:
    answer = Client(args).post("/sleep", model=args.model, level=args.level)
    print(f"{args.model} sleeps at level {answer['level']}")
    return 0
