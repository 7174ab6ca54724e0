"""The text of a first config.toml: what fits a machine, with the reasons beside it."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import Final

from engine import Estimate
from gateway.commands.survey import Found, Machine
from gateway.config import MemoryConfig
from gateway.units import format_bytes

SMALL, SMALL_TOGETHER = 0.05, 0.25
"""Shares of the device's limit up to which models are woken at start."""
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_EXAMPLE: Final = """
# More models: a name of your own and a directory, or a hub id, which is downloaded on first use.
#
# [models.qwen]
# path = "Qwen/Qwen3-0.6B"
# aliases = ["gpt-4o-mini"]    # other names that clients may use
# idle_timeout = "never"       # stays awake
# pinned = true                # nor has it to make room for others
""".strip()


def config_text(machine: Machine, models: Sequence[Found], left_out: Sequence[Found]) -> str:
    """``models`` can be served here, each alone; ``left_out`` are told of."""
    preloaded = preloads(machine, models)
    paragraphs = [
        _head(machine),
        _server(),
        _sleep(machine, models),
        _memory(machine),
        *(_model(model, preload=model.name in preloaded) for model in models),
        _EXAMPLE,
        *([_left_out(left_out)] if left_out else []),
    ]
    return "\n\n".join(paragraphs) + "\n"


def preloads(machine: Machine, models: Sequence[Found]) -> list[str]:
    """Those so small that nobody misses what they take, the smallest first."""
    limit = MemoryConfig().device_limit.of(machine.memory.total)
    names, total = [], 0
    for size, name in sorted((_least(model), model.name) for model in models):
        total += size
        if size <= SMALL * limit and total <= SMALL_TOGETHER * limit:
            names.append(name)
    return names


def _least(model: Found) -> int:
    return model.estimate.least_bytes if model.estimate else 0


def _head(machine: Machine) -> str:
    ram = f"{format_bytes(machine.host.total)} of RAM"
    gpu = "no GPU" if machine.device == "cpu" else f"a GPU with {format_bytes(machine.memory.total)}"
    return (
        f"# Written by `dormouse init` for {machine.cores} CPU cores, {ram} and {gpu}.\n"
        "# `dormouse check` tells what it comes to, `dormouse serve` serves it."
    )


def _server() -> str:
    return (
        "[server]\n"
        'host = "127.0.0.1"           # "0.0.0.0" for all who can reach this machine; then set api_keys\n'
        "port = 8000\n"
        '# api_keys = ["${DORMOUSE_KEY}"]'
    )


def _sleep(machine: Machine, models: Sequence[Found]) -> str:
    limit = MemoryConfig().device_limit.of(machine.memory.total)
    needed = sum(map(_least, models))
    if 2 * needed <= limit:
        timeout, why = "30m", "all fit, with room to spare, so they may stay awake for long"
    elif needed <= limit:
        timeout, why = "5m", "all fit, with little room for long conversations"
    else:
        timeout, why = "5m", "not all fit, so those that nobody asks make room soon"
    return (
        "[sleep]\n"
        f"# Awake together the models take {format_bytes(needed)}: {why}.\n"
        f"idle_timeout = {json.dumps(timeout):14}# without a request\n"
        'level = "auto"               # 1 keeps the weights in RAM, where there is room; 2 gives all back\n'
        'deepen_after = "1h"          # from level 1 to level 2'
    )


def _memory(machine: Machine) -> str:
    defaults = MemoryConfig()
    device = format_bytes(defaults.device_limit.of(machine.memory.total))
    host = format_bytes(defaults.host_limit.of(machine.host.total))
    whose = "the RAM this process may use" if machine.memory.shared_with_host else "the GPU's memory"
    return (
        "[memory]\n"
        f'device_limit = "90%"         # of {whose}: {device}\n'
        f'host_limit = "70%"           # of the RAM, for the weights of level-1 sleepers: {host}'
    )


def _model(model: Found, *, preload: bool) -> str:
    lines = [f"[models.{_key(model.name)}]", f"path = {json.dumps(model.path, ensure_ascii=False)}"]
    if model.estimate:
        lines[0] = f"{lines[0]}  # {_described(model.estimate)}"
    if preload:
        lines.append("preload = true               # small: woken at start")
    return "\n".join(lines)


def _described(estimate: Estimate) -> str:
    return (
        f"{estimate.architecture}, {format_bytes(estimate.weights_bytes)} of weights, "
        f"{format_bytes(estimate.least_bytes)} awake, {estimate.max_model_len} tokens"
    )


def _left_out(left_out: Sequence[Found]) -> str:
    return "\n".join(("# Found, but not served:", *_lines(left_out)))


def _lines(left_out: Sequence[Found]) -> Iterator[str]:
    for model in left_out:
        yield f"# - {_one_line(model.path)}: {textwrap.shorten(model.reason, 100, placeholder=' ...')}"


def _one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else json.dumps(name, ensure_ascii=False)
