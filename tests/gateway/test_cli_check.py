"""What `dormouse check` says of a configuration that is right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import engine.demo
from engine import Estimate
from gateway import cli
from gateway.bench.rates import Rates, measure
from gateway.commands.check import _told, check
from gateway.commands.forecast import Forecast, Known, wake_seconds
from gateway.config import Config, Level, ModelConfig
from gateway.fleet.snapshot import Budget

DEMO = Path(engine.demo.__file__).parent
GIB = 2**30
RATES = Rates(copy=10 * GIB, cached=4 * GIB, disk=GIB)


def known(name: str, gib: int, level: Level = "auto") -> Known:
    estimate = Estimate(
        weights_bytes=gib * GIB,
        least_bytes=gib * GIB + GIB // 4,
        kv_bytes_per_token=1,
        max_model_len=1,
        architecture="LlamaForCausalLM",
    )
    return Known(config=ModelConfig(name=name, path="/there", level=level), estimate=estimate)


def budget(device: int, host: int, *, shared: bool = False) -> Budget:
    return Budget(
        device_limit=device * GIB,
        device_used=0,
        device_available=0,  # what else runs now has no say
        host_limit=host * GIB,
        host_parked=0,
        host_available=0,
        shared_pool=shared,
    )


def test_those_fit_awake_that_the_fleet_would_wake_beside_each_other() -> None:
    models = [known("a", 6), known("b", 6), known("c", 1)]
    assert Forecast(models, budget(10, 99)).awake == ["a", "c"]
    assert Forecast(models, budget(14, 99)).awake == ["a", "b", "c"]


@pytest.mark.parametrize("shared", [False, True])
def test_who_is_parked_leaves_less_for_others(shared: bool) -> None:
    models = [known("a", 6), known("deep", 1, level=2), known("b", 6), known("c", 1)]
    assert Forecast(models, budget(14, 8, shared=shared)).parked == ["a", "c"]


def test_the_level_of_each_and_why() -> None:
    forecast = Forecast([], budget(40, 8))
    assert forecast.level(known("a", 6)) == (1, "its 6.0 GiB fit into memory.host_limit, 8.0 GiB")
    assert forecast.level(known("a", 9)) == (2, "its 9.0 GiB do not fit into memory.host_limit, 8.0 GiB")
    assert forecast.level(known("a", 6, level=2)) == (2, "as configured")


def test_a_wake_takes_as_long_as_its_bytes_take() -> None:
    four = known("a", 4).estimate
    shared = wake_seconds(four, RATES, 1.0, shared=True)
    assert shared["1"] < 0.01, "the weights are where they are needed"
    assert shared["2"] == pytest.approx(1.0, abs=0.1)
    assert shared["cold"] == pytest.approx(4.0, abs=0.1)
    assert wake_seconds(four, RATES, 0.5, shared=True)["2"] == pytest.approx(2.5, abs=0.1)
    assert wake_seconds(four, RATES, 1.0, shared=False)["1"] == pytest.approx(0.4, abs=0.1)


def test_measuring_is_quick_and_has_some_result(tmp_path: Path) -> None:
    rates = measure([DEMO / "demo-a" / "model.safetensors"], 0.1)
    assert rates.copy > 2**20 and rates.cached >= rates.disk > 2**20
    (tmp_path / "empty").write_bytes(b"")
    assert measure([tmp_path / "empty"], 0.1).disk == 0


def checked(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as left:
        cli.main(["check", *words])
    assert left.value.code == 0
    return capsys.readouterr().out


def test_a_right_configuration_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    (tmp_path / "config.toml").write_text(
        f'[models.a]\npath = "{DEMO / "demo-a"}"\n'
        f'[models.b]\npath = "{DEMO / "demo-b"}"\nlevel = 2\ndevice = "cpu"\n'
        '[models.hub]\npath = "mice/not-here"\n'
    )
    monkeypatch.chdir(tmp_path)
    said = checked(capsys)
    assert "a: LlamaForCausalLM, 3.7 MiB of weights\n" in said
    assert "asleep  at level 1: its 3.7 MiB fit into memory.host_limit" in said
    assert "asleep  at level 2: as configured" in said
    assert "Awake together: all, 10.0 MiB." in said and "Parked at level 1 together: a.\n" in said
    assert "hub: mice/not-here, downloaded from the hub on first use" in said

    told: dict[str, Any] = json.loads(checked(capsys, "--json"))
    (device,) = told["devices"]  # "auto" and "cpu" are the same
    assert [(model["name"], model["level"]) for model in device["models"]] == [("a", 1), ("b", 2)]
    for model in device["models"]:
        light, deep, cold = (model["wake_seconds"][key] for key in ("1", "2", "cold"))
        assert 0 < light < deep <= cold < 10
    assert told["to_download"] == [{"name": "hub", "path": "mice/not-here"}]


def test_with_nothing_here_there_is_nothing_to_estimate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    (tmp_path / "config.toml").write_text('[models.hub]\npath = "mice/not-here"\n')
    said = checked(capsys, "--config", str(tmp_path / "config.toml"))
    assert said == "hub: mice/not-here, downloaded from the hub on first use\n"


def test_every_checkpoint_that_cannot_be_served_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.toml"
    (tmp_path / "empty").mkdir()
    file.write_text(
        f'[models.a]\npath = "{DEMO / "demo-a"}"\n[models.b]\npath = "empty"\n[models.c]\npath = "empty"\n'
    )
    with pytest.raises(SystemExit) as left:
        cli.main(["check", "--config", str(file)])
    assert left.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1] for line in lines] == ["models.b.path", "models.c.path"]


def test_it_says_that_cuda_has_not_been_run_yet() -> None:
    report = check(Config(models=(ModelConfig(name="a", path=str(DEMO / "demo-a")),)), Path("config.toml"))
    said = "CUDA has not been run on hardware yet"
    assert f"{said}." in _told(report)
    report["devices"][0]["device"] = "cuda:0"
    assert f"{said}: what is said of it is by the book." in _told(report)
