"""`dormouse chat MODEL`: a conversation in the terminal, streamed. It ends with the session."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote

from rich.console import Console

from gateway.commands import CommandError
from gateway.commands.client import Client

Message = dict[str, str]


def run(args: argparse.Namespace) -> int:
    client = Client(args)
    client.get(f"/v1/models/{quote(args.model, safe='')}")
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    if interactive:
        import readline  # noqa: F401  (input() edits lines and remembers them once it is there)

        print(f"Chatting with {args.model}. Ctrl-C stops an answer, /exit or Ctrl-D leaves.")
    history: list[Message] = []
    for question in _questions("> " if interactive else ""):
        history.append({"role": "user", "content": question})
        try:
            answer = _answer(client, args.model, history)
        except CommandError as error:
            if not interactive:
                raise
            print(error, file=sys.stderr)
            history.pop()
        else:
            history.append({"role": "assistant", "content": answer})
    return 0


def _questions(prompt: str) -> Iterator[str]:
    while True:
        try:
            question = input(prompt).strip()
        except EOFError:
            if prompt:
                print()
            return
        except KeyboardInterrupt:
            print("\nCtrl-D or /exit leaves.")
            continue
        if question == "/exit":
            return
        if question:
            yield question


def _answer(client: Client, model: str, history: list[Message]) -> str:
    """Prints the answer as it comes; what has come when Ctrl-C stops it is the answer."""
    said = ""
    waiting = Console(stderr=True).status(f"{model} ...")
    body = {"model": model, "messages": history, "stream": True}
    try:
        with waiting, client.stream("/v1/chat/completions", body) as lines:
            for text in _texts(lines):
                waiting.stop()
                print(text, end="", flush=True)
                said += text
    except KeyboardInterrupt:
        print(" (stopped)", end="")
    print()
    return said


def _texts(lines: Iterable[str]) -> Iterator[str]:
    """The pieces of text in a stream of server-sent events."""
    for line in lines:
        if not line.startswith("data: ") or line == "data: [DONE]":
            continue
        event: dict[str, Any] = json.loads(line.removeprefix("data: "))
        if "error" in event:
            raise CommandError(event["error"]["message"])
        for choice in event["choices"]:
            if text := choice["delta"].get("content"):
                yield text
