"""`dormouse sleep MODEL`."""

from __future__ import annotations

import argparse
import json

from gateway.commands.client import Client


def run(args: argparse.Namespace) -> int:
    answer = Client(args).post("/sleep", model=args.model, level=args.level)
    if args.json:
        print(json.dumps({"model": args.model, "level": answer["level"]}))
    else:
        print(f"{args.model} sleeps at level {answer['level']}")
    return 0
