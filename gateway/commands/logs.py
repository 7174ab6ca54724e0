"""`dormouse logs`: the models' transitions, a line each: those remembered and, to follow, those to come."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from gateway.commands.client import Client, Unreachable
from gateway.commands.status_table import STYLES
from gateway.units import format_bytes, format_seconds

RETRY: Final = 1.0


def run(args: argparse.Namespace) -> int:
    client, console = Client(args), Console()
    model = args.model and client.model_id(args.model)
    for event in _follow(client) if args.follow else _remembered(client):
        if model in (None, event["model"]):
            if args.json:
                print(json.dumps(event), flush=True)
            else:
                console.print(_line(event), soft_wrap=True)
    return 0


def _remembered(client: Client) -> Iterator[dict[str, Any]]:
    with client.stream("GET", "/api/events?follow=false") as lines:
        for _, event in _events(lines):
            yield event


def _follow(client: Client) -> Iterator[dict[str, Any]]:
    """Through restarts of the gateway, once it has answered at all."""
    seen = "0"
    answered = False
    while True:
        try:
            with client.stream("GET", "/api/events", headers={"last-event-id": seen}) as lines:
                answered = True
                for number, event in _events(lines):
                    seen = number
                    yield event
        except Unreachable:
            if not answered:
                raise
            print(f"the gateway at {client.url} does not answer; trying again", file=sys.stderr, flush=True)
            answered = _wait_for(client)


def _wait_for(client: Client) -> bool:
    while True:
        time.sleep(RETRY)
        with suppress(Unreachable):
            client.get("/version")
            return True


def _events(lines: Iterator[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Number and content of each."""
    number = "0"
    for line in lines:
        key, _, value = line.partition(": ")
        if key == "id":
            number = value
        elif key == "data":
            yield number, json.loads(value)


def _line(event: dict[str, Any]) -> Text:
    level = f" ({event['level']})" if event["level"] and event["after"] == "asleep" else ""
    facts = [event["cause"]]
    if event["seconds"]:
        facts.append(format_seconds(event["seconds"]))
    if event["bytes"]:
        facts.append(format_bytes(event["bytes"]))
    return Text.assemble(
        (f"{datetime.fromtimestamp(event['at']):%Y-%m-%d %H:%M:%S}", "dim"),
        f"  {event['model']}  {event['before']} -> ",
        (event["after"] + level, STYLES.get(event["after"], "")),
        (f"  {', '.join(facts)}", "dim"),
    )
