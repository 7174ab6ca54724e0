from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from gateway.step_metrics import StepMetrics


def test_the_series_are_those_of_prometheus() -> None:
    metrics, registry = StepMetrics(), CollectorRegistry()
    registry.register(metrics)
    steps = metrics.of("a")
    for gap in (0.001, 0.002, 0.25, 11.0):
        steps.count(2)
        steps.observe_gap(gap)
    text = generate_latest(registry).decode()
    assert 'dormouse_generated_tokens_total{model="a"} 8.0' in text
    for bound, count in {"0.001": 1, "0.0025": 2, "0.1": 2, "0.25": 3, "10.0": 3, "+Inf": 4}.items():
        assert f'dormouse_inter_token_seconds_bucket{{le="{bound}",model="a"}} {count}.0' in text
    assert 'dormouse_inter_token_seconds_count{model="a"} 4.0' in text
    assert 'dormouse_inter_token_seconds_sum{model="a"} 11.253' in text
    assert metrics.generated_tokens() == {"a": 8}
