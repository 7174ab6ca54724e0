"""One verb from its arguments to its exit code: whatever ends it early is one line on stderr."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys

from gateway.commands import INTERRUPTED, CommandError


def dispatch(args: argparse.Namespace) -> int:
    try:
        code = _run(args)
        print(end="", flush=True)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return _without_output()
    except OSError as error:
        print(f"{error.filename or f'dormouse {args.verb}'}: {error.strerror or error}", file=sys.stderr)
        return _without_output()
    return code


def _run(args: argparse.Namespace) -> int:
    try:
        code: int = importlib.import_module(f"gateway.commands.{args.verb}").run(args)
    except CommandError as error:
        print(error, file=sys.stderr)
        if getattr(args, "json", False):
            print(json.dumps({"error": error.told}))
        return error.exit_code
    return code


def _without_output() -> int:
    """Nobody takes it any more; without this, flushing at exit would fail once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1
