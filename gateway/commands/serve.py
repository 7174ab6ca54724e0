"""`dormouse serve`: the configuration from the file and the command line, which has the last word."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from gateway.commands import CommandError
from gateway.commands.starting import Starting
from gateway.config import Config, ModelConfig, Size, name_mistakes
from gateway.config_file import ConfigError, load_config
from gateway.config_text import Mistake, locate
from gateway.reload import ConfigSource
from gateway.server import serve

DEFAULT_FILE = Path("config.toml")


def run(args: argparse.Namespace) -> int:
    if platform.system() != "Linux":
        raise CommandError(f"serves on Linux only; this is {platform.system()}")
    try:
        source = config_source(args)
        config = source.read()
    except ConfigError as error:
        raise CommandError(str(error), exit_code=2) from None
    code = serve(config, source, Starting(Console(stderr=True)))
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads may still be in a download or a stuck step, and leaving through the interpreter waits for them.
    os._exit(code)


def config_source(args: argparse.Namespace) -> ConfigSource:
    """Raises ConfigError when neither a model nor a file is there."""
    file: Path | None = args.config
    if file is None and not args.models:
        file = DEFAULT_FILE
        if not file.exists():
            raise ConfigError(
                "nothing to serve: name a MODEL, or a file with --config; there is no config.toml here, "
                "and `dormouse init` writes one"
            )
    return ConfigSource(file, partial(_configuration, args, file))


def _configuration(args: argparse.Namespace, file: Path | None) -> Config:
    config = load_config(file) if file else Config()
    models = (*config.models, *_named(args))
    if not models:
        raise ConfigError(f"{file}: models: none; add a [models.NAME] section with a path")
    if mistakes := [str(Mistake(*mistake)) for mistake in name_mistakes(models)]:
        raise ConfigError("\n".join(mistakes))
    overrides = _given(
        idle_timeout=args.idle_timeout,
        max_model_len=args.max_model_len,
        dtype=args.dtype,
        max_running=args.max_num_seqs,
    )
    share = args.gpu_memory_utilization
    return replace(
        config,
        server=replace(
            config.server,
            **_given(host=args.host, port=args.port, api_keys=args.api_key and tuple(args.api_key)),
        ),
        memory=config.memory if share is None else replace(config.memory, device_limit=Size(share=share)),
        models=tuple(replace(model, **overrides) for model in models),
    )


def _named(args: argparse.Namespace) -> list[ModelConfig]:
    """The models of the command line."""
    names = args.served_model_name
    if names and len(args.models) != 1:
        raise ConfigError("--served-model-name needs exactly one MODEL")
    models = []
    for typed in args.models:
        try:
            path = locate(typed, Path.cwd())
        except ValueError as error:
            raise ConfigError(str(Mistake(typed, str(error)))) from None
        name, *aliases = names or [typed]
        models.append(ModelConfig(name=name, path=path, aliases=tuple(aliases), preload=True))
    return models


def _given(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
