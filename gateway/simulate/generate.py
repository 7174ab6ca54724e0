"""Made-up loads and fleets, the same for the same seed.

Popularity is Zipf's: the k-th of the models is asked for in proportion to 1/k. Prompts and answers have
log-normal lengths, models log-uniform sizes that have nothing to do with their popularity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import accumulate
from random import Random
from typing import Literal, get_args

from gateway.simulate.trace import Request

Load = Literal["zipf", "daily", "bursts"]
LOADS: tuple[Load, ...] = get_args(Load)

DAY = 86_400.0
BURST = 20
"""Requests of a burst, on average."""
BURST_GAP = 10.0
"""Seconds between two of them, on average."""
SMALLEST, LARGEST = 0.5e9, 30e9
"""Bytes of weights."""

Moment = tuple[float, int]
"""Seconds, and the number of a model, from 0 for the most popular."""


def generate(load: Load, *, models: int, requests: int, seconds: float, seed: int) -> Iterator[Request]:
    """``requests`` in the order of time, over ``seconds`` (of bursts, the last may end later)."""
    random = Random(f"{load}:{seed}")
    moments = _MOMENTS[load](random, models, requests, seconds)
    digits = len(str(models))
    for at, model in sorted(moments):
        yield Request(
            at=round(at, 3),
            model=f"model-{model + 1:0{digits}}",
            prompt_tokens=_length(random, typical=200, most=4000),
            max_tokens=_length(random, typical=80, most=1000),
        )


def made_up_size(model: str, seed: int) -> int:
    """Bytes of weights for a model of which nothing but the name is known."""
    low, high = math.log(SMALLEST), math.log(LARGEST)
    return int(math.exp(Random(f"{model}:{seed}").uniform(low, high)))


def _steady(random: Random, models: int, requests: int, seconds: float) -> list[Moment]:
    return [(random.uniform(0.0, seconds), model) for model in _popular(random, models, requests)]


def _daily(random: Random, models: int, requests: int, seconds: float) -> list[Moment]:
    """Each model has an hour of its own at which it is asked for most; twelve hours off, hardly at all."""
    peaks = [random.uniform(0.0, DAY) for _ in range(models)]
    return [
        (_moment_of_day(random, peaks[model], seconds), model) for model in _popular(random, models, requests)
    ]


def _moment_of_day(random: Random, peak: float, seconds: float) -> float:
    while True:
        at = random.uniform(0.0, seconds)
        if random.uniform(-1.0, 1.0) < math.cos((at - peak) / DAY * math.tau):
            return at


def _bursts(random: Random, models: int, requests: int, seconds: float) -> list[Moment]:
    """Models are quiet, then asked for many times within minutes, then quiet again."""
    moments: list[Moment] = []
    popular = _popular(random, models, requests)
    while len(moments) < requests:
        at, model = random.uniform(0.0, seconds), popular.pop()
        for _ in range(min(_geometric(random, BURST), requests - len(moments))):
            moments.append((at, model))
            at += random.expovariate(1 / BURST_GAP)
    return moments


_MOMENTS: dict[Load, Callable[[Random, int, int, float], list[Moment]]] = {
    "zipf": _steady,
    "daily": _daily,
    "bursts": _bursts,
}


def _popular(random: Random, models: int, count: int) -> list[int]:
    weights = list(accumulate(1 / rank for rank in range(1, models + 1)))
    return random.choices(range(models), cum_weights=weights, k=count)


def _geometric(random: Random, mean: int) -> int:
    return 1 + int(math.log(1.0 - random.random()) / math.log(1.0 - 1.0 / mean))


def _length(random: Random, *, typical: int, most: int) -> int:
    return max(1, min(most, round(random.lognormvariate(math.log(typical), 1.0))))
