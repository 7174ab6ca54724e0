"""Costs with round numbers, and replays on a machine that has them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gateway.config import Config, MemoryConfig, ModelConfig, Size
from gateway.simulate.baselines import rankings
from gateway.simulate.costs import Costs, LevelCosts
from gateway.simulate.machine import Machine
from gateway.simulate.replay import Outcome, replay
from gateway.simulate.trace import Request

COSTS = Costs(
    level_1=LevelCosts(sleep_seconds=0.5, wake_seconds=0.5, bytes_per_second=100.0),
    level_2=LevelCosts(sleep_seconds=1.0, wake_seconds=2.0, bytes_per_second=10.0),
    weights_bytes=100,
    tokens_per_second={1: 0.5, 3: 0.75},
)
"""A step of a model of 100 bytes takes a second, and one more for each token in it."""

FAST = Costs(
    level_1=LevelCosts(sleep_seconds=0.01, wake_seconds=0.01, bytes_per_second=1e10),
    level_2=LevelCosts(sleep_seconds=0.01, wake_seconds=0.01, bytes_per_second=1e9),
    weights_bytes=10**9,
    tokens_per_second={1: 100.0, 10: 500.0},
)


async def replayed(
    trace: Iterable[Request],
    sizes: dict[str, int],
    device: int,
    host: int | None = None,
    *,
    costs: Costs = COSTS,
    policy: str = "dormouse",
    **configs: dict[str, Any],
) -> Outcome:
    """``sizes`` and ``configs`` are by the models' names."""
    whole = Size(share=1.0)
    config = Config(
        models=tuple(ModelConfig(name=name, path=name, **configs.get(name, {})) for name in sizes),
        memory=MemoryConfig(device_limit=whole, host_limit=whole),
    )
    ranking, watch = rankings()[policy]
    return await replay(
        trace, config, lambda timers: Machine(timers, costs, sizes, device, host), ranking, watch
    )
