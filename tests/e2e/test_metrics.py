"""After a day's work in small every series is there, and what docker/ asks Prometheus for is among them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.server import Server, running

DOCKER = Path(__file__).parents[2] / "docker"
DEMO = Path(__file__).parents[2] / "engine" / "demo"
OWN_OF_PROMETHEUS = {"up"}
GRAFANAS = {"$__rate_interval": "5m", "$instance": ".*", "$model": ".*"}
"""What Grafana puts into a query, and something that it might put there."""
KEPT_BY_PROMETHEUS = {"instance", "job"}
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")


@pytest.fixture(scope="module")
def scrape(tmp_path_factory: pytest.TempPathFactory) -> str:
    """/metrics after models that woke from everywhere, slept, made room and failed, and a streamed answer."""
    directory = tmp_path_factory.mktemp("metrics")
    fragile = shutil.copytree(DEMO / "demo-b", directory / "fragile")
    paths = {"demo-a": DEMO / "demo-a", "demo-b": DEMO / "demo-b", "fragile": fragile}
    models = "".join(f'[models.{name}]\npath = "{path}"\n' for name, path in paths.items())
    config = f'[memory]\ndevice_limit = "9MiB"\n[queue]\nmin_awake = "0s"\n{models}'
    with running(directory, config, OMP_NUM_THREADS="1") as server:
        _work(server, fragile)
        answer = server.http.get("/metrics")
    assert answer.status_code == 200
    return answer.text


def _work(server: Server, fragile: Path) -> None:
    assert _chat(server, "demo-a").status_code == 200
    assert "[DONE]" in _chat(server, "demo-a", stream=True).text
    for level in (1, 2):
        server.http.post(f"/sleep?level={level}&model=demo-a").raise_for_status()
        assert _chat(server, "demo-a").status_code == 200
    assert _chat(server, "demo-b").status_code == 200, "for which the other makes room"
    next(fragile.glob("*.safetensors")).unlink()
    assert _chat(server, "fragile").status_code == 503


def _chat(server: Server, model: str, **more: Any) -> httpx.Response:
    messages = [{"role": "user", "content": "What is Dormouse? " * 4}]
    body = {"model": model, "messages": messages, "max_tokens": 8, **more}
    return server.http.post("/v1/chat/completions", json=body)


@pytest.fixture(scope="module")
def families(scrape: str) -> list[Metric]:
    return list(text_string_to_metric_families(scrape))


@pytest.fixture(scope="module")
def labels(families: list[Metric]) -> dict[str, set[str]]:
    """Of each series' name."""
    known: dict[str, set[str]] = {}
    for family in families:
        for sample in family.samples:
            known.setdefault(sample.name, set()).update(sample.labels)
    return known


def test_every_series_is_there_and_has_counted(families: list[Metric]) -> None:
    """What is a gauge may be 0."""
    assert len(families) > 20
    assert not [family.name for family in families if not family.samples]
    idle = {family.name for family in families if not any(sample.value for sample in family.samples)}
    assert idle <= {"dormouse_model_in_flight", "dormouse_model_queued", "dormouse_model_host_bytes"}


def test_wakes_and_sleeps_have_their_levels_and_causes(families: list[Metric]) -> None:
    counted = {
        (sample.name, sample.labels["level"], sample.labels["cause"])
        for family in families
        for sample in family.samples
        if "cause" in sample.labels and sample.value
    }
    assert counted >= {
        *(("dormouse_wakes_total", level, "request") for level in ("cold", "1", "2")),
        *(("dormouse_sleeps_total", level, "manual") for level in ("1", "2")),
    }
    assert {cause for name, _, cause in counted if name == "dormouse_evictions_total"} == {"room"}


def alerts() -> dict[str, str]:
    groups = yaml.safe_load((DOCKER / "alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}


def queries() -> dict[str, str]:
    """Those of the dashboard, as Grafana would send them."""
    found = {}
    for panel in json.loads((DOCKER / "grafana-dashboard.json").read_text())["panels"]:
        for target in panel["targets"]:
            expression = target["expr"]
            for variable, value in GRAFANAS.items():
                expression = expression.replace(variable, value)
            assert "$" not in expression.replace('"$1"', ""), expression
            found[f"{panel['title']} {target['refId']}"] = expression
    return found


EXPRESSIONS = alerts() | queries()


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_what_is_asked_for_is_told(name: str, labels: dict[str, set[str]]) -> None:
    asked = list(_selectors(EXPRESSIONS[name]))
    assert asked
    for series, names in asked:
        if series not in OWN_OF_PROMETHEUS:
            assert series in labels
            assert names <= labels[series] | KEPT_BY_PROMETHEUS, series


def _selectors(expression: str) -> Iterable[tuple[str, set[str]]]:
    """The series that an expression names, each with the labels by which it picks."""
    for series, matchers in re.findall(r"\b(up|dormouse_\w+|vllm:\w+)\b(?:\{([^}]*)\})?", expression):
        yield series, set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", matchers))


def test_everything_told_is_shown(labels: dict[str, set[str]]) -> None:
    shown = {series for expression in EXPRESSIONS.values() for series, _ in _selectors(expression)}
    told = {re.sub(r"_(bucket|count|sum)$", "", name) for name in labels}
    assert told == {re.sub(r"_(bucket|count|sum)$", "", name) for name in shown - OWN_OF_PROMETHEUS}


def promtool(*words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    assert PROMTOOL
    return subprocess.run(
        [PROMTOOL, *words], input=stdin, capture_output=True, text=True, timeout=30, check=False
    )


@needs_promtool
def test_promtool_reads_the_metrics(scrape: str) -> None:
    """It minds nothing but the colon in vLLM's own name."""
    found = promtool("check", "metrics", stdin=scrape)
    complaints = (found.stdout + found.stderr).splitlines()
    assert complaints == ["vllm:engine_sleep_state metric names should not contain ':'"]


@needs_promtool
@pytest.mark.parametrize(
    "words",
    ["check config prometheus.yml", "check rules alerts.yml", "test rules alerts_test.yml"],
)
def test_promtool_accepts(words: str) -> None:
    *verb, file = words.split()
    found = promtool(*verb, str(DOCKER / file))
    assert found.returncode == 0, found.stdout + found.stderr


@needs_promtool
def test_promtool_parses_what_the_dashboard_asks(tmp_path: Path) -> None:
    rules = [{"record": f"query:{n}", "expr": query} for n, query in enumerate(queries().values())]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    found = promtool("check", "rules", str(file))
    assert found.returncode == 0, found.stdout + found.stderr
    assert f"{len(rules)} rules found" in found.stdout
