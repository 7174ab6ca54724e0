"""`dormouse check`: is the configuration right, can its checkpoints be served, what does it come to here?"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import engine
from engine import Estimate
from gateway.bench.page_cache import resident_share
from gateway.bench.rates import Rates, measure
from gateway.commands import CommandError
from gateway.commands.forecast import Forecast, Known, wake_seconds
from gateway.config import Config, ModelConfig
from gateway.config_file import ConfigError, json_schema, load_config
from gateway.fleet.budget import Memory
from gateway.fleet.snapshot import Budget
from gateway.units import format_bytes, format_seconds

MEASURING: Final = 0.8
"""Seconds for all file systems together."""


def run(args: argparse.Namespace) -> int:
    if args.schema:
        print(json_schema())
        return 0
    try:
        report = check(load_config(args.config), args.config)
    except ConfigError as error:
        raise CommandError(str(error), exit_code=2) from None
    print(json.dumps(report) if args.json else "\n".join(_told(report)))
    return 0


def check(config: Config, file: Path) -> dict[str, Any]:
    """All that can be said of it. Raises ConfigError."""
    if not config.models:
        raise ConfigError(f"{file}: models: none; add a [models.NAME] section with a path")
    memory = Memory(config.memory, engine)
    estimates = _estimates(config.models, memory, file)
    models = list(zip(config.models, estimates, strict=True))
    known = [Known(config=model, estimate=estimate) for model, estimate in models if estimate]
    rates = _measured(known)
    by_device: dict[str, list[Known]] = {}
    for model in known:
        by_device.setdefault(memory.device_name(model.config.device), []).append(model)
    devices = [_device(device, some, memory, rates) for device, some in by_device.items()]
    absent = [{"name": model.name, "path": model.path} for model, estimate in models if not estimate]
    return {"devices": devices, "to_download": absent}


def _estimates(models: Sequence[ModelConfig], memory: Memory, file: Path) -> list[Estimate | None]:
    estimates, wrong = [], []
    for model in models:
        try:
            estimates.append(_estimate(model, memory, f"{file}: models.{model.name}"))
        except ConfigError as error:
            wrong.append(str(error))
    if wrong:
        raise ConfigError("\n".join(wrong))
    return estimates


def _estimate(model: ModelConfig, memory: Memory, where: str) -> Estimate | None:
    try:
        estimate = engine.estimate(model.path, model.engine_options(), model.device)
    except engine.EngineError as error:
        raise ConfigError(f"{where}.path: {error}") from None
    try:
        too_large = memory.too_large(model.device, estimate)
    except engine.EngineError as error:
        raise ConfigError(f"{where}.device: {error}") from None
    if too_large:
        raise ConfigError(f"{where}.path: {too_large}")
    return estimate


def _device(device: str, models: Sequence[Known], memory: Memory, rates: dict[int, Rates]) -> dict[str, Any]:
    budget = memory.budget(device, 0, 0)
    forecast = Forecast(models, budget)
    return {
        "device": device,
        "limit": budget.device_limit,
        "free": budget.device_available,
        "parking_limit": budget.host_limit,
        "models": [_model(model, forecast, budget, rates) for model in models],
        "awake_together": forecast.awake,
        "parked_together": forecast.parked,
    }


def _model(model: Known, forecast: Forecast, budget: Budget, rates: dict[int, Rates]) -> dict[str, Any]:
    estimate, files = model.estimate, _files(model)
    level, why = forecast.level(model)
    return {
        "name": model.config.name,
        "architecture": estimate.architecture,
        "weights_bytes": estimate.weights_bytes,
        "awake_bytes": estimate.least_bytes,
        "kv_bytes_per_token": estimate.kv_bytes_per_token,
        "max_model_len": estimate.max_model_len,
        "level": level,
        "why": why,
        "wake_seconds": wake_seconds(
            estimate, rates[_file_system(files[0])], resident_share(files), shared=budget.shared_pool
        ),
    }


def _measured(models: Sequence[Known]) -> dict[int, Rates]:
    """By the file system that holds the weights."""
    files: dict[int, list[Path]] = {}
    for model in models:
        for file in _files(model):
            files.setdefault(_file_system(file), []).append(file)
    return {place: measure(some, MEASURING / len(files)) for place, some in files.items()}


def _files(model: Known) -> list[Path]:
    return engine.weight_files(model.config.path, model.config.revision)


def _file_system(file: Path) -> int:
    return file.stat().st_dev


def _told(report: dict[str, Any]) -> Iterator[str]:
    for device in report["devices"]:
        for model in device["models"]:
            yield from _told_of_model(model)
        yield ""
        yield from _told_of_device(device)
    for model in report["to_download"]:
        yield f"{model['name']}: {model['path']}, downloaded from the hub on first use"
    if report["devices"]:
        on_cuda = any(device["device"] != "cpu" for device in report["devices"])
        by_the_book = ": what is said of it is by the book" if on_cuda else ""
        yield f"CUDA has not been run on hardware yet{by_the_book}."
        yield "Times are estimates, from a second of copying and reading on this machine."


def _told_of_model(model: dict[str, Any]) -> Iterator[str]:
    yield f"{model['name']}: {model['architecture']}, {format_bytes(model['weights_bytes'])} of weights"
    kv = model["kv_bytes_per_token"]
    context = f", and {format_bytes(kv)} for each further token of context" if kv else ""
    yield f"  awake   takes {format_bytes(model['awake_bytes'])}{context}"
    yield f"  asleep  at level {model['level']}: {model['why']}"
    light, deep, cold = (format_seconds(model["wake_seconds"][key]) for key in ("1", "2", "cold"))
    yield f"  wakes   in {light} from level 1, {deep} from level 2, {cold} when nothing is in the page cache"


def _told_of_device(device: dict[str, Any]) -> Iterator[str]:
    names = [model["name"] for model in device["models"]]
    sizes = {model["name"]: model["awake_bytes"] for model in device["models"]}
    together = sum(sizes[name] for name in device["awake_together"])
    limit, free, parking = (format_bytes(max(0, device[key])) for key in ("limit", "free", "parking_limit"))
    awake = _listed(device["awake_together"], names)
    name = device["device"]
    yield f"Device {name}: {limit} may be used ({free} free now), {parking} of RAM by parked weights."
    yield f"Awake together: {awake}, {format_bytes(together)}{_turns(device, names)}."
    yield f"Parked at level 1 together: {_listed(device['parked_together'], names)}."


def _turns(device: dict[str, Any], names: Sequence[str]) -> str:
    others = [name for name in names if name not in device["awake_together"]]
    return f"; {', '.join(others)} take{'s' * (len(others) == 1)} turns with them" if others else ""


def _listed(some: Sequence[str], names: Sequence[str]) -> str:
    if len(some) == len(names) > 1:
        return "all"
    return ", ".join(some) or "none"
