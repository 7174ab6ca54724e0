"""`dormouse simulate`: how a fleet would serve a trace, under one policy or several; or a made-up trace.

Tables fit 80 columns; progress goes to standard error.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

import engine
from gateway.commands import CommandError
from gateway.config import Config, ModelConfig
from gateway.config_file import ConfigError, load_config
from gateway.fleet import VirtualTimers
from gateway.simulate.baselines import rankings
from gateway.simulate.costs import CPU, GPU, CostsError, load_costs
from gateway.simulate.generate import generate, made_up_size
from gateway.simulate.machine import Machine
from gateway.simulate.replay import replay
from gateway.simulate.report import Figures, figures, words
from gateway.simulate.trace import Request, TraceError, read_trace, write_trace


def run(args: argparse.Namespace) -> int:
    if args.generate:
        made_up = generate(
            args.generate,
            models=args.models,
            requests=args.requests,
            seconds=args.duration,
            seed=args.seed,
        )
        write_trace(made_up, sys.stdout.buffer)
        return 0
    if args.trace is None:
        raise CommandError("expected a TRACE, or --generate to make one up", exit_code=2)
    try:
        trace = list(read_trace(args.trace))
        config = load_config(args.config) if args.config else _fleet_of(trace)
        sizes = {model.path: _size(model, args.seed) for model in config.models}
        costs = load_costs(args.costs) if args.costs else None
    except (TraceError, ConfigError, CostsError, engine.EngineError) as error:
        raise CommandError(str(error), exit_code=2) from None
    _check_names(trace, config)
    device, host = _memories(args.device_memory, args.host_memory)

    def machine(timers: VirtualTimers) -> Machine:
        return Machine(timers, costs or (CPU if host is None else GPU), sizes, device, host)

    results = {name: _simulate(name, trace, config, machine) for name in args.policy or rankings()}
    if args.json:
        print(json.dumps({"trace": str(args.trace), "models": len(config.models), "policies": results}))
    else:
        Console(highlight=False).print(_table(results))
    return 0


def _simulate(
    policy: str, trace: list[Request], config: Config, machine: Callable[[VirtualTimers], Machine]
) -> Figures:
    sys.stderr.write(f"{policy} ...\n")
    logging.getLogger("dormouse").setLevel(logging.CRITICAL)
    ranking, watch = rankings()[policy]
    return figures(asyncio.run(replay(trace, config, machine, ranking, watch)))


def _memories(device: int | None, host: int | None) -> tuple[int, int | None]:
    """Bytes of the device, and of the host when the device has memory of its own; by default, this
    machine's."""
    here = engine.memory_state()
    if device is None and host is not None:
        raise CommandError("--host-memory: needs --device-memory beside it", exit_code=2)
    return (here.total if device is None else device), host


def _fleet_of(trace: Iterable[Request]) -> Config:
    names = sorted({request.model for request in trace})
    return Config(models=tuple(ModelConfig(name=name, path=name) for name in names))


def _size(model: ModelConfig, seed: int) -> int:
    """Of its weights; made up where the checkpoint is not on this machine."""
    if not Path(model.path).is_dir():
        return made_up_size(model.name, seed)
    estimate = engine.estimate(model.path, model.engine_options())
    return estimate.weights_bytes if estimate else made_up_size(model.name, seed)


def _check_names(trace: Iterable[Request], config: Config) -> None:
    known = {name for model in config.models for name in (model.name, *model.aliases)}
    if unknown := sorted({request.model for request in trace} - known):
        raise CommandError(f"the trace asks for {unknown[0]!r}, which the configuration lacks", exit_code=2)


def _table(results: dict[str, Figures]) -> Table:
    """A column for each policy, a row for each figure."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column()
    for policy in results:
        table.add_column(policy, justify="right")
    columns = [words(result) for result in results.values()]
    for name in columns[0]:
        table.add_row(name, *(column[name] for column in columns))
    return table
