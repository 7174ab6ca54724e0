"""`dormouse check`: is the configuration right, and can its checkpoints be served?"""

from __future__ import annotations

import argparse

import engine
from gateway.commands import CommandError
from gateway.config import ModelConfig
from gateway.config_file import ConfigError, json_schema, load_config
from gateway.fleet.budget import Memory
from gateway.units import format_bytes


def run(args: argparse.Namespace) -> int:
    if args.schema:
        print(json_schema())
        return 0
    try:
        config = load_config(args.config)
        if not config.models:
            raise ConfigError(f"{args.config}: models: none; add a [models.NAME] section with a path")
        memory = Memory(config.memory, engine)
        lines = [_describe(model, memory, f"{args.config}: models.{model.name}") for model in config.models]
    except ConfigError as error:
        raise CommandError(str(error), exit_code=2) from None
    print(*lines, sep="\n")
    return 0


def _describe(model: ModelConfig, memory: Memory, where: str) -> str:
    try:
        estimate = engine.estimate(model.path, model.engine_options())
    except engine.EngineError as error:
        raise ConfigError(f"{where}.path: {error}") from None
    if estimate is None:
        return f"{model.name}: {model.path}, downloaded from the hub on first use"
    try:
        too_large = memory.too_large(model.device, estimate)
    except engine.EngineError as error:
        raise ConfigError(f"{where}.device: {error}") from None
    if too_large:
        raise ConfigError(f"{where}.path: {too_large}")
    return f"{model.name}: {estimate.architecture}, {format_bytes(estimate.weights_bytes)} of weights"
