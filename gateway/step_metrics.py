"""What is counted at every step of every answer: the tokens, and the time between them.

Counted on the loop alone, so it needs none of the locks of ``prometheus_client``'s own series, which would
be a tenth of what a streamed token costs.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Seconds."""


class Steps:
    """Of one model."""

    __slots__ = ("_gaps", "_seconds", "tokens")

    def __init__(self) -> None:
        self.tokens = 0
        self._gaps = [0] * (len(_BOUNDS) + 1)
        self._seconds = 0.0

    def count(self, tokens: int) -> None:
        self.tokens += tokens

    def observe_gap(self, seconds: float) -> None:
        """So long after the answer's step before."""
        self._gaps[bisect_left(_BOUNDS, seconds)] += 1
        self._seconds += seconds

    def add_to(self, histogram: HistogramMetricFamily, model: str) -> None:
        so_far, buckets = 0, []
        for bound, count in zip((*map(str, _BOUNDS), "+Inf"), self._gaps, strict=True):
            so_far += count
            buckets.append((bound, so_far))
        histogram.add_metric([model], buckets, self._seconds)


class StepMetrics(Collector):
    def __init__(self) -> None:
        self._models: dict[str, Steps] = {}

    def of(self, model: str) -> Steps:
        return self._models.setdefault(model, Steps())

    def generated_tokens(self) -> dict[str, int]:
        """Of all answers so far, by model."""
        return {model: steps.tokens for model, steps in self._models.items()}

    def collect(self) -> Iterator[Metric]:
        tokens = CounterMetricFamily("dormouse_generated_tokens", "Tokens of answers", labels=["model"])
        gaps = HistogramMetricFamily("dormouse_inter_token_seconds", "Between tokens", labels=["model"])
        for model, steps in self._models.items():
            tokens.add_metric([model], steps.tokens)
            steps.add_to(gaps, model)
        yield tokens
        yield gaps
