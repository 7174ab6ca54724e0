"""`dormouse init`: looks at the machine and writes a config.toml that fits it."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import engine
from gateway.commands import CommandError
from gateway.commands.init_text import config_text, preloads
from gateway.commands.survey import Found, Machine, checkpoints, demo_models, machine
from gateway.config import MemoryConfig
from gateway.fleet.budget import Memory
from gateway.units import format_bytes


def run(args: argparse.Namespace) -> int:
    for directory in args.directories:
        if not directory.is_dir():
            raise CommandError(f"{directory}: no such directory")
    here = machine()
    models, left_out = _sorted_out(checkpoints(args.directories))
    found = bool(models)
    models = models or demo_models()
    _write(args.output, config_text(here, models, left_out), force=args.force)
    if args.json:
        print(_as_json(args.output, here, models, left_out))
    else:
        _tell(args.output, models, left_out, args.directories, found=found)
    return 0


def _sorted_out(found: Sequence[Found]) -> tuple[list[Found], list[Found]]:
    """Those that can be served, and those that cannot, with the reason."""
    memory = Memory(MemoryConfig(), engine)
    models, left_out = [], []
    for model in found:
        too_large = memory.too_large("auto", model.estimate)
        if model.estimate and not too_large:
            models.append(model)
        else:
            left_out.append(replace(model, reason=too_large or model.reason))
    return models, left_out


def _write(file: Path, text: str, *, force: bool) -> None:
    if str(file) == "-":
        raise CommandError("--output is a file's name; /dev/stdout shows what would be written", exit_code=2)
    try:
        with file.open("w" if force else "x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise CommandError(f"{file} is there already: --force replaces it, --output names another") from None
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}") from None


def _as_json(file: Path, here: Machine, models: Sequence[Found], left_out: Sequence[Found]) -> str:
    preloaded = preloads(here, models)
    return json.dumps(
        {
            "file": str(file),
            "device": here.device,
            "cores": here.cores,
            "device_memory": here.memory.total,
            "host_memory": here.host.total,
            "models": [asdict(model) | {"preload": model.name in preloaded} for model in models],
            "left_out": [{"path": model.path, "reason": model.reason} for model in left_out],
        }
    )


def _tell(
    file: Path,
    models: Sequence[Found],
    left_out: Sequence[Found],
    directories: Sequence[Path],
    *,
    found: bool,
) -> None:
    if not found:
        elsewhere = "".join(f" or in {directory}" for directory in directories)
        print(
            f"Nothing that can be served is in the Hugging Face cache{elsewhere}; here are the demo models."
        )
    for model in models:
        size = f", {format_bytes(model.estimate.weights_bytes)}" if model.estimate else ""
        print(f"  {model.name} ({model.path}{size})")
    if left_out:
        print(f"{len(left_out)} more cannot be served; the file says why.")
    given = "" if str(file) == "config.toml" else f" --config {shlex.quote(str(file))}"
    print(f"Wrote {file}. Next: `dormouse check{given}`, then `dormouse serve{given}`.")
