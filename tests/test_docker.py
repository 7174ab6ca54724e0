"""What docker/ says of Dormouse is so of Dormouse. Whether the image runs, docker/smoke.sh tells."""

from __future__ import annotations

import configparser
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.config import ServerConfig
from gateway.server import EXIT_DEVICE_LOST, GRACE

ROOT = Path(__file__).parents[1]
LONGEST_STOP = ServerConfig().drain_timeout + 2 * GRACE


@pytest.fixture
def services() -> dict[str, dict[str, Any]]:
    compose: dict[str, Any] = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
    return compose["services"]


@pytest.fixture
def unit() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.read(ROOT / "docker" / "dormouse.service")
    return parser["Service"]


@pytest.mark.parametrize("name", ["dormouse", "cuda"])
def test_compose_lets_it_end_and_starts_it_again(services: dict[str, dict[str, Any]], name: str) -> None:
    service = services[name]
    assert int(service["stop_grace_period"].removesuffix("s")) > LONGEST_STOP
    assert service["restart"] == "on-failure"
    assert service["mem_limit"] == service["memswap_limit"]


def test_compose_mounts_what_there_is(services: dict[str, dict[str, Any]]) -> None:
    mounted = [volume for service in services.values() for volume in service["volumes"]]
    files = [ROOT / "docker" / volume.split(":")[0] for volume in mounted if volume.startswith("./")]
    assert len(files) == 5
    assert all(file.is_file() for file in files)


def test_prometheus_asks_the_service_by_its_name(services: dict[str, dict[str, Any]]) -> None:
    (job,) = yaml.safe_load((ROOT / "docker" / "prometheus.yml").read_text())["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["dormouse:8000"]}]
    assert job["job_name"] in (ROOT / "docker" / "alerts.yml").read_text()
    assert services["cuda"]["networks"]["default"]["aliases"] == ["dormouse"]


def test_systemd_lets_it_end_and_starts_it_again(unit: configparser.SectionProxy) -> None:
    assert int(unit["TimeoutStopSec"]) > LONGEST_STOP
    assert (unit["Restart"], int(unit["RestartForceExitStatus"])) == ("on-failure", EXIT_DEVICE_LOST)


def test_what_the_image_is_made_of_is_not_ignored() -> None:
    """Everything is, but for these."""
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text()
    copied = {
        name for line in re.findall(r"^COPY (?!--)(.+) \S+$", dockerfile, re.M) for name in line.split()
    }
    assert copied == {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert all((ROOT / name).exists() for name in copied)
