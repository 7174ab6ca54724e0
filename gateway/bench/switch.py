"""The switch: one model goes to sleep, another wakes and says its first token.

Measured at level 1, at level 2 with the files in the page cache and with the files dropped from it, against
the cold start of the same model in a new process and against transformers' ``from_pretrained``, all in one
run on one machine. Each figure is a median over rounds, the first of which is thrown away.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import engine
from engine import EngineOptions, Level
from gateway.bench import cold_start, page_cache
from gateway.bench.decoding import tokens_per_second
from gateway.bench.first_token import first_token

MAX_RUNNING = 4


@dataclass(frozen=True, slots=True)
class Mode:
    """One way to sleep. ``prepare`` puts the page cache into the state that the name says."""

    name: str
    level: Level
    prepare: Callable[[list[Path]], None] | None = None


MODES = (
    Mode("level 1", 1),
    Mode("level 2, files cached", 2, page_cache.load),
    Mode("level 2, files dropped", 2, page_cache.drop),
)


async def measure(out: str, into: str, rounds: int, report: Callable[[str], None]) -> dict[str, Any]:
    """Switch between the two checkpoints ``rounds`` times each way and mode. Seconds and bytes."""
    options = EngineOptions(max_model_len=None, max_running=MAX_RUNNING)
    paths = (out, into)
    models = [engine.open(path, "cpu", options) for path in paths]
    for model in models:
        await model.wake()
        await first_token(model)
    report("decoding ...")
    rates = {str(count): await tokens_per_second(models[0], count) for count in (1, MAX_RUNNING)}
    switches = []
    for mode in MODES:
        report(f"{mode.name} ...")
        switches += await _measure_mode(mode, paths, models, rounds)
    for model in models:
        await model.close()
    cold = {}
    for path in dict.fromkeys(paths):
        report(f"cold starts of {path} ...")
        cold[path] = _cold(path, rounds)
    for switch in switches:
        baseline = cold[switch["model"]]
        switch["times_faster_than_cold_start"] = baseline["dormouse"]["total"] / switch["total"]
        theirs = baseline["transformers"]
        if isinstance(theirs, dict):
            seconds = theirs["load"] + theirs["first_token"]
            switch["times_faster_than_from_pretrained"] = seconds / switch["total"]
    return {
        "benchmark": "switch",
        "rounds": rounds,
        "switches": switches,
        "cold_starts": cold,
        "costs": _costs(switches[::2], rates),
    }


def _costs(switches: list[dict[str, Any]], rates: dict[str, float]) -> dict[str, Any]:
    """What `dormouse simulate --costs` reads: of one model, level 2 with its files dropped."""
    light, _, deep = switches
    filling = max(deep["wake"] - light["wake"], 1e-9)
    return {
        "level_1": _level_costs(light, light["wake"], None),
        "level_2": _level_costs(deep, light["wake"], deep["bytes"] / filling),
        "weights_bytes": deep["bytes"],
        "tokens_per_second": rates,
    }


def _level_costs(switch: dict[str, Any], wake: float, rate: float | None) -> dict[str, float | None]:
    return {"sleep_seconds": switch["sleep"], "wake_seconds": wake, "bytes_per_second": rate}


async def _measure_mode(
    mode: Mode, paths: tuple[str, str], models: list[engine.Engine], rounds: int
) -> list[dict[str, Any]]:
    """Both directions in turn, so that each model falls asleep and wakes as often."""
    samples: list[list[dict[str, float]]] = [[], []]
    await models[1].sleep(mode.level)
    await models[0].wake()
    for _ in range(rounds + 1):
        for target in (1, 0):
            samples[target].append(
                await _switch(mode, models[1 - target], models[target], _files(paths[target]))
            )
    await models[1].wake()
    return [
        _summary(mode, path, model.footprint().weights, taken[1:])
        for path, model, taken in zip(paths, models, samples, strict=True)
    ]


async def _switch(mode: Mode, out: engine.Engine, into: engine.Engine, files: list[Path]) -> dict[str, float]:
    if mode.prepare:
        mode.prepare(files)
    cached = page_cache.resident_share(files)
    slept = (await out.sleep(mode.level)).seconds
    woken = (await into.wake()).seconds
    token = await first_token(into)
    return {"sleep": slept, "wake": woken, "first_token": token, "files_cached": cached}


def _summary(mode: Mode, path: str, weights: int, samples: list[dict[str, float]]) -> dict[str, Any]:
    figures = _medians(samples)
    total = median(s["sleep"] + s["wake"] + s["first_token"] for s in samples)
    filled = weights if mode.level == 2 else 0
    rate = filled / figures["wake"] / 1e9 if filled else None
    return {"mode": mode.name, "model": path, "bytes": filled, **figures, "total": total, "gb_per_s": rate}


def _cold(path: str, rounds: int) -> dict[str, Any]:
    """Both cold starts, alternating, with the files in the page cache."""
    page_cache.load(_files(path))
    ours, theirs = [], []
    for _ in range(min(rounds, 3)):
        ours.append(cold_start.ours(path))
        theirs.append(cold_start.transformers(path))
    timed = [sample for sample in theirs if isinstance(sample, dict)]
    return {
        "dormouse": _medians(ours),
        "transformers": _medians(timed) if timed else theirs[0],
    }


def _medians(samples: list[dict[str, float]]) -> dict[str, float]:
    return {name: median(sample[name] for sample in samples) for name in samples[0]}


def _files(path: str) -> list[Path]:
    return sorted(Path(path).glob("*.safetensors"))
