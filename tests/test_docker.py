"""What docker/ says of Dormouse is so of Dormouse. Whether the image runs, docker/smoke.sh tells."""

from __future__ import annotations

import configparser
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.config import ServerConfig
from gateway.config_file import load_config
from gateway.server import EXIT_DEVICE_LOST, GRACE
from tests.e2e.server import DORMOUSE

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()
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
    assert service["mem_limit"] == service["memswap_limit"]


def test_compose_starts_all_again_after_a_reboot(services: dict[str, dict[str, Any]]) -> None:
    """As ``on-failure`` does not."""
    assert {service["restart"] for service in services.values()} == {"unless-stopped"}


@pytest.mark.parametrize("name", ["dormouse", "cuda"])
def test_compose_mounts_the_configurations_directory(services: dict[str, dict[str, Any]], name: str) -> None:
    """A file that is mounted stays as it was when an editor replaces it, so a SIGHUP would change nothing."""
    (mount,) = [volume for volume in services[name]["volumes"] if isinstance(volume, dict)]
    assert (mount["type"], mount["target"], mount["read_only"]) == ("bind", "/config", True)
    default = mount["source"].removeprefix("${DORMOUSE_CONFIG_DIR:-").removesuffix("}")
    assert load_config(ROOT / "docker" / default / "config.toml").models


def test_compose_mounts_what_there_is(services: dict[str, dict[str, Any]]) -> None:
    mounted = [v for service in services.values() for v in service["volumes"] if isinstance(v, str)]
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


def test_what_the_units_first_lines_install_can_be_served(tmp_path: Path) -> None:
    """From any directory, as systemd starts it from another one than the repository."""
    header = re.findall(r"^# {3}(.+)", (ROOT / "docker" / "dormouse.service").read_text(), re.M)
    (line,) = [line for line in header if " init " in line]
    command = line.replace("/opt/dormouse/bin", str(Path(DORMOUSE).parent)).replace(
        "/etc/dormouse", str(tmp_path)
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hub")}
    subprocess.run(["bash", "-ec", command], check=True, capture_output=True, cwd=tmp_path, env=environment)
    models = load_config(tmp_path / "config.toml").models
    assert models
    assert all(Path(model.path).is_absolute() and Path(model.path).is_dir() for model in models)


def health_check(url: str) -> int:
    """The exit code of the image's own."""
    (words,) = re.findall(r"^HEALTHCHECK .+?CMD (\[.+?\])$", DOCKERFILE.replace("\\\n", ""), re.M | re.S)
    _, *arguments = json.loads(words)
    environment = {**os.environ, "DORMOUSE_URL": url}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True).returncode


def test_the_health_check_asks_where_it_is_told_to() -> None:
    """By default where the image's own arguments let it listen."""

    class Healthy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 404)
            self.end_headers()

    with HTTPServer(("127.0.0.1", 0), Healthy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert health_check(url) == 0
        assert health_check(f"{url}/elsewhere") != 0
        server.shutdown()
    port = re.search(r'^CMD .*"--port", "(\d+)"\]$', DOCKERFILE, re.M)
    assert port
    assert f"\nENV DORMOUSE_URL=http://127.0.0.1:{port[1]}\n" in DOCKERFILE


def test_what_the_image_is_made_of_is_not_ignored() -> None:
    """Everything is, but for these."""
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    copied = {
        name for line in re.findall(r"^COPY (?!--)(.+) \S+$", DOCKERFILE, re.M) for name in line.split()
    }
    assert copied == {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert all((ROOT / name).exists() for name in copied)
