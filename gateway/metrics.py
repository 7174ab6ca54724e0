"""What is counted and measured, as Prometheus reads it: of requests, of models' sleeps and wakes, of memory.

Durations are in seconds, sizes in bytes. ``level`` of a wake is what it woke from, ``cold`` for a model that
had no place yet; of a sleep it is what it came to.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from gateway.fleet import Fleet, ModelStatus, State, Transition
from gateway.step_metrics import StepMetrics

disable_created_metrics()  # type: ignore[no-untyped-call]  # when each series began: nobody asks

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_WAITS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_EVICTIONS: Final = ("room", "turn", "memory")
"""Causes of a sleep that others' needs are."""
_WAKES: Final[dict[str, tuple[str, ...]]] = {
    "cold": ("request", "preload", "manual"),
    "1": ("request", "manual", "turn"),
    "2": ("request", "manual", "turn"),
}
_SLEEPS: Final[dict[str, tuple[str, ...]]] = {
    "1": ("idle", "manual", *_EVICTIONS),
    "2": ("idle", "deepen", "manual", *_EVICTIONS),
}
"""Both: the causes that there are at each level."""
_RESTING: Final = frozenset({State.ASLEEP, State.COLD})


class Metrics:
    def __init__(self, fleet: Fleet) -> None:
        self._registry = CollectorRegistry()
        self._woken_from: dict[str, str] = {}
        self.steps = StepMetrics()
        """Counted by who answers, at every step."""
        self._registry.register(self.steps)
        self._requests = self._counter("requests", "Requests answered", "model", "route", "status")
        self._prompt_tokens = self._counter("prompt_tokens", "Tokens of prompts", "model")
        self._cached_tokens = self._counter("cached_prompt_tokens", "Of these, found in the cache", "model")
        self._request_seconds = self._histogram("request_seconds", "From arrival to the end", "model")
        self._first_token = self._histogram("time_to_first_token_seconds", "From arrival", "model")
        self._queued = self._histogram("queue_wait_seconds", "For a place, the wake apart", "model")
        self._wakes = self._counter("wakes", "Models woken", "model", "level", "cause")
        self._wake_seconds = self._histogram("wake_seconds", "That wakes took", "model", "level")
        self._wake_bytes = self._counter("wake_bytes", "Copied by wakes", "model", "level")
        self._wake_failures = self._counter("wake_failures", "Wakes that failed", "model")
        self._sleeps = self._counter("sleeps", "Models put to sleep", "model", "level", "cause")
        self._sleep_seconds = self._histogram("sleep_seconds", "That falling asleep took", "model", "level")
        self._sleep_bytes = self._counter("sleep_bytes", "Given back by sleeps", "model", "level")
        self._evictions = self._counter("evictions", "Sleeps for others' sake", "model", "level", "cause")
        self._fleet = fleet
        self._zeroed: set[str] = set()
        self._registry.register(_FleetCollector(fleet))
        fleet.events.subscribe(self._moved)

    def expose(self) -> str:
        """All of it as Prometheus's text."""
        for model in self._fleet.config.models:
            if model.name not in self._zeroed:
                self._zeroed.add(model.name)
                self._zero(model.name)
        return generate_latest(self._registry).decode()

    def _zero(self, model: str) -> None:
        """Rates see a first event only if there was a zero before."""
        self._wake_failures.labels(model)
        for level, causes in _WAKES.items():
            for cause in causes:
                self._wakes.labels(model, level, cause)
        for level, causes in _SLEEPS.items():
            for cause in causes:
                self._sleeps.labels(model, level, cause)
                if cause in _EVICTIONS:
                    self._evictions.labels(model, level, cause)

    def answered(self, model: str, route: str, status: str, seconds: float) -> None:
        """``model``: empty for a request that names none of ours."""
        self._requests.labels(model, route, status).inc()
        if model:
            self._request_seconds.labels(model).observe(seconds)

    def placed(self, model: str, queue_seconds: float, prompt_tokens: int) -> None:
        """A request has its place at the model."""
        self._queued.labels(model).observe(queue_seconds)
        self._prompt_tokens.labels(model).inc(prompt_tokens)

    def began(self, model: str, seconds: float) -> None:
        """The first token has come, so long after the arrival."""
        self._first_token.labels(model).observe(seconds)

    def cached(self, model: str, tokens: int) -> None:
        """So many of a prompt's tokens were in the cache."""
        self._cached_tokens.labels(model).inc(tokens)

    def _moved(self, transition: Transition) -> None:
        match transition.before, transition.after:
            case _, State.WAKING:
                self._woken_from[transition.model] = str(transition.level or "cold")
            case _, State.FAILED:
                self._wake_failures.labels(transition.model).inc()
            case State.WAKING, State.AWAKE:
                self._woke(transition, self._woken_from.get(transition.model, "cold"))
            case _, after if after in _RESTING and transition.level:
                self._slept(transition)

    def _woke(self, transition: Transition, level: str) -> None:
        model = transition.model
        self._wakes.labels(model, level, transition.cause).inc()
        self._wake_seconds.labels(model, level).observe(transition.seconds)
        self._wake_bytes.labels(model, level).inc(transition.bytes)

    def _slept(self, transition: Transition) -> None:
        model, level = transition.model, str(transition.level)
        self._sleeps.labels(model, level, transition.cause).inc()
        self._sleep_seconds.labels(model, level).observe(transition.seconds)
        self._sleep_bytes.labels(model, level).inc(transition.bytes)
        if transition.cause in _EVICTIONS:
            self._evictions.labels(model, level, transition.cause).inc()

    def _counter(self, name: str, help: str, *labels: str) -> Counter:
        return Counter(f"dormouse_{name}", help, labels, registry=self._registry)

    def _histogram(self, name: str, help: str, *labels: str) -> Histogram:
        return Histogram(f"dormouse_{name}", help, labels, registry=self._registry, buckets=_WAITS)


class _FleetCollector(Collector):
    """What is so at the moment of looking."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def collect(self) -> Iterator[GaugeMetricFamily]:
        models = self._fleet.status()
        yield _states(models)
        yield _sleep_states(models)
        for name, help in _OF_MODELS.items():
            gauge = GaugeMetricFamily(f"dormouse_model_{name}", help, labels=["model"])
            for model in models:
                gauge.add_metric([model.name], float(getattr(model, name)))
            yield gauge
        for pool, sizes in self._fleet.memory().items():
            gauge = GaugeMetricFamily(f"dormouse_{pool}_bytes", f"Memory of the {pool}", labels=["kind"])
            for kind, size in sizes.items():
                gauge.add_metric([kind], size)
            yield gauge


_OF_MODELS: Final = {
    "in_flight": "Requests accepted and not over",
    "queued": "Of these, those without a token yet",
    "device_bytes": "Held on the device",
    "host_bytes": "Parked in RAM",
    "weights_bytes": "Size of the weights",
    "kv_bytes": "Held for keys and values",
}
"""Numbers of a ModelStatus."""


def _states(models: list[ModelStatus]) -> GaugeMetricFamily:
    gauge = GaugeMetricFamily("dormouse_model_state", "1 for the state it is in", labels=["model", "state"])
    for model in models:
        for state in State:
            gauge.add_metric([model.name, state], float(model.state is state))
    return gauge


def _sleep_states(models: list[ModelStatus]) -> GaugeMetricFamily:
    """vLLM's own series."""
    labels = ["model_name", "sleep_state"]
    gauge = GaugeMetricFamily("vllm:engine_sleep_state", "1 for the state it is in", labels=labels)
    for model in models:
        is_awake = model.state in (State.AWAKE, State.DRAINING)
        state = "awake" if is_awake else "weights_offloaded" if model.level == 1 else "discard_all"
        for one in ("awake", "weights_offloaded", "discard_all"):
            gauge.add_metric([model.name, one], float(one == state))
    return gauge
