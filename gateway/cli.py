"""The `dormouse` command: its verbs and their arguments. What a verb does is in ``gateway.commands.VERB``.

Imports nothing heavy, so that `dormouse ps` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import get_args

from engine import DType
from gateway.commands.dispatch import dispatch
from gateway.near import nearest
from gateway.units import parse_bytes, parse_duration

DEFAULT_URL = "http://127.0.0.1:8000"


def main(argv: Sequence[str] | None = None) -> None:
    args = _parse(sys.argv[1:] if argv is None else argv)
    if args.verb == "serve":
        # Else the first process of a container would not heed it until it serves.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))
    sys.exit(dispatch(args))


def _parse(words: Sequence[str]) -> argparse.Namespace:
    declared = parser()
    if [*words[:3]] == ["completion", "words", "--"]:
        # The scripts ask this. What a user has typed so far is not ours to parse.
        return argparse.Namespace(verb="completion", shell="words", declared=declared, words=[*words[3:]])
    verbs = _verbs(declared)
    if not words or words[0].startswith("-") or words[0] == "bench" or "--" in words:
        return declared.parse_args(words)
    if words[0] not in verbs:
        near = nearest(words[0], verbs)
        declared.error(f"no verb {words[0]!r}" + (f"; did you mean {near!r}?" if near else ""))
    verb, given = verbs[words[0]], argparse.Namespace(verb=words[0])
    # Options may stand anywhere, between a model and its question too.
    args, unknown = verb.parse_known_intermixed_args(words[1:], given)
    if unknown:
        near = nearest(unknown[0], verb._option_string_actions)
        hint = f"; did you mean {near!r}?" if near and unknown[0].startswith("-") else ""
        verb.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    return args


def _verbs(declared: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    actions = (action for action in declared._actions if isinstance(action, argparse._SubParsersAction))
    choices: Mapping[str, argparse.ArgumentParser] = next(actions).choices
    return choices


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dormouse", description="Serves many language models on one machine; idle ones sleep."
    )
    parser.add_argument("--version", action="version", version=f"dormouse {version('dormouse')}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    _serve(verbs.add_parser("serve", help="start the gateway"))
    _init(verbs.add_parser("init", help="look at this machine and write a config.toml that fits it"))
    _check(verbs.add_parser("check", help="is a configuration right, and what does it come to here"))
    _client_verbs(verbs)
    _pull(verbs.add_parser("pull", help="download a model's files, waking nothing"))
    completion = verbs.add_parser("completion", help="a script that completes verbs, options and models")
    completion.add_argument("shell", choices=["bash", "zsh", "fish"])
    _bench(verbs.add_parser("bench", help="measure this machine"))
    _simulate(verbs.add_parser("simulate", help="how a fleet would serve a trace, or a made-up trace"))
    return parser


def _client_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    client = _client_options()
    ps = verbs.add_parser("ps", parents=[client], help="what is awake, asleep, in flight and queued")
    ps.add_argument("-w", "--watch", action="store_true", help="again and again, until q or Ctrl-C")
    _json(ps, "the gateway's whole status")
    sleep = verbs.add_parser("sleep", parents=[client], help="put a model to sleep")
    _json(sleep)
    sleep.add_argument("model", metavar="MODEL")
    sleep.add_argument(
        "--level", type=int, choices=[1, 2], help="1 keeps the weights in RAM, 2 gives everything back"
    )
    wake = verbs.add_parser("wake", parents=[client], help="wake a model")
    wake.add_argument("model", metavar="MODEL")
    _json(wake)
    chat = verbs.add_parser("chat", parents=[client], help="talk with a model in the terminal")
    chat.add_argument("model", metavar="MODEL", nargs="?", help="default: the first that is served")
    chat.add_argument("question", metavar="QUESTION", nargs="?", help="or piped in: answered once")
    _json(chat, "the answer to one question, as one JSON line")
    logs = verbs.add_parser("logs", parents=[client], help="which model woke and slept, when and why")
    logs.add_argument("model", metavar="MODEL", nargs="?", help="of this one only")
    logs.add_argument("-f", "--follow", action="store_true", help="go on with what happens next")
    _json(logs, "JSON lines")


def _serve(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    count = _number(int, 1, math.inf, "a number from 1")
    add("models", metavar="MODEL", nargs="*", help="a Hugging Face directory or hub id, woken at start")
    add("--config", type=Path, metavar="FILE", help="default: config.toml here, when no MODEL is named")
    add("--host")
    add("--port", type=_number(int, 0, 65535, "a port"))
    add("--idle-timeout", type=_duration, metavar="DURATION", help='such as 90s, 5m or "never"')
    add(
        "--served-model-name",
        action="append",
        metavar="NAME",
        help="what clients call the MODEL; more of them are aliases",
    )
    add("--max-model-len", type=count, metavar="N", help="tokens of prompt and answer together")
    add("--dtype", choices=get_args(DType))
    add("--api-key", action="append", metavar="KEY", help="opens the API; may be repeated")
    add("--max-num-seqs", type=count, metavar="N", help="sequences decoded together")
    add(
        "--gpu-memory-utilization",
        type=_number(float, 0.01, 1, "a share from 0.01 to 1"),
        metavar="F",
        help="share of the device's memory that may be used (without a GPU: of the RAM)",
    )
    add("--enable-sleep-mode", action="store_true", help="accepted; models always sleep when idle")


def _init(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("directories", type=Path, metavar="DIRECTORY", nargs="*", help="with models, beside the cache's")
    add("--output", type=Path, default=Path("config.toml"), metavar="FILE", help="[%(default)s]")
    add("--force", action="store_true", help="replace the file")
    _json(parser)


def _check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=Path("config.toml"), metavar="FILE")
    parser.add_argument("--schema", action="store_true", help="print the JSON schema of the file and leave")
    _json(parser)


def _pull(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="one of the configuration, or a hub id")
    parser.add_argument("--config", type=Path, default=Path("config.toml"), metavar="FILE")
    _json(parser)


def _bench(parser: argparse.ArgumentParser) -> None:
    benchmarks = parser.add_subparsers(dest="benchmark", metavar="BENCHMARK", required=True)
    switch = benchmarks.add_parser("switch", help="one model to sleep, another awake, against cold starts")
    switch.add_argument("out", metavar="OUT", help="a checkpoint's directory")
    switch.add_argument("into", metavar="IN", help="another one")
    switch.add_argument("--rounds", type=_number(int, 1, 1000, "a number from 1"), default=5, metavar="N")
    _json(switch, "the JSON line without the tables")


def _simulate(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    count = _number(int, 1, math.inf, "a number from 1")
    add("trace", type=Path, nargs="?", metavar="TRACE", help="JSON lines of requests, maybe gzipped")
    add("--config", type=Path, metavar="FILE", help="default: a fleet of what the trace names, sizes made up")
    add("--policy", action="append", choices=["lru", "gds", "dormouse"], help="default: all of them")
    add("--costs", type=Path, metavar="FILE", help="the JSON line of `dormouse bench switch`")
    add("--device-memory", type=_bytes, metavar="SIZE", help="default: the RAM of this machine")
    add("--host-memory", type=_bytes, metavar="SIZE", help="RAM beside a device with memory of its own")
    _json(parser)
    add("--generate", choices=["zipf", "daily", "bursts"], help="write a trace to standard output instead")
    add("--models", type=count, default=100, metavar="N", help="of a generated trace [%(default)s]")
    add("--requests", type=count, default=100_000, metavar="N", help="[%(default)s]")
    add("--duration", type=_duration, default=86_400.0, metavar="DURATION", help="such as 24h, the default")
    add("--seed", type=int, default=1, metavar="N", help="for what is made up [%(default)s]")


def _json(parser: argparse.ArgumentParser, help: str = "one JSON line") -> None:
    parser.add_argument("--json", action="store_true", help=help)


def _client_options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--url", default=os.environ.get("DORMOUSE_URL") or DEFAULT_URL, help="or DORMOUSE_URL [%(default)s]"
    )
    parser.add_argument(
        "--api-key", default=os.environ.get("DORMOUSE_API_KEY"), metavar="KEY", help="or DORMOUSE_API_KEY"
    )
    return parser


def _number(kind: type[int] | type[float], low: float, high: float, what: str) -> Callable[[str], float]:
    def parse(text: str) -> float:
        with contextlib.suppress(ValueError):
            if low <= (number := kind(text)) <= high:
                return number
        raise argparse.ArgumentTypeError(f"expected {what}, got {text!r}")

    return parse


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _bytes(text: str) -> int:
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
