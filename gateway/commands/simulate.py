"""`dormouse simulate`: how a fleet would serve a trace, under one policy or several; or a made-up trace.

Tables fit 80 columns; progress goes to standard error.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import math
import os
import signal
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
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
from gateway.simulate.costs import CPU, GPU, Costs, CostsError, load_costs
from gateway.simulate.generate import generate, made_up_size
from gateway.simulate.machine import Machine
from gateway.simulate.replay import replay
from gateway.simulate.report import Figures, figures, words
from gateway.simulate.trace import Request, TraceError, read_trace, write_trace


@dataclass(frozen=True, slots=True)
class Scene:
    """What all policies are tried on. Sizes and memories in bytes."""

    trace: list[Request]
    config: Config
    sizes: dict[str, int]
    costs: Costs
    device_memory: int
    host_memory: int | None

    def machine(self, timers: VirtualTimers) -> Machine:
        return Machine(timers, self.costs, self.sizes, self.device_memory, self.host_memory)


def run(args: argparse.Namespace) -> int:
    if args.generate:
        if args.duration == math.inf:
            raise CommandError("--duration: a trace ends", exit_code=2)
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
    scene = Scene(trace, config, sizes, costs or (CPU if host is None else GPU), device, host)
    results = _simulate_all(args.policy or list(rankings()), scene)
    if args.json:
        print(json.dumps({"trace": str(args.trace), "models": len(config.models), "policies": results}))
    else:
        Console(highlight=False).print(_table(results))
    return 0


def _simulate_all(policies: list[str], scene: Scene) -> dict[str, Figures]:
    """Side by side, as far as there are processors."""
    sys.stderr.write(f"{', '.join(policies)} ...\n")
    workers = min(len(policies), len(os.sched_getaffinity(0)))
    quiet_end = (signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends a worker without a trace
    with ProcessPoolExecutor(workers, initializer=signal.signal, initargs=quiet_end) as pool:
        return dict(zip(policies, pool.map(_simulate, policies, [scene] * len(policies)), strict=True))


def _simulate(policy: str, scene: Scene) -> Figures:
    logging.getLogger("dormouse").setLevel(logging.CRITICAL)
    ranking, watch = rankings()[policy]
    return figures(asyncio.run(replay(scene.trace, scene.config, scene.machine, ranking, watch)))


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
