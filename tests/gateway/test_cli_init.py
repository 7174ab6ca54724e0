"""What `dormouse init` finds on a machine, and that what it writes is right."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

import engine.demo
from engine import Estimate, MemoryState
from gateway.commands.init_text import config_text, preloads
from gateway.commands.survey import Found, Machine
from gateway.config_file import load_config
from tests.e2e.server import DORMOUSE

DEMO = Path(engine.demo.__file__).parent
GIB = 2**30


def init(home: Path, *words: str, code: int = 0) -> str:
    """What it says."""
    done = subprocess.run(
        [DORMOUSE, "init", *words],
        env={**os.environ, "HF_HOME": str(home / "hf")},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    return done.stdout or done.stderr


def cached(home: Path, repository: str, source: Path, *without: str) -> None:
    """As the hub's client would have left it."""
    directory = home / "hf" / "hub" / f"models--{repository.replace('/', '--')}"
    shutil.copytree(source, directory / "snapshots" / "c0ffee", ignore=shutil.ignore_patterns(*without))
    (directory / "refs").mkdir()
    (directory / "refs" / "main").write_text("c0ffee")


def test_with_nothing_here_it_writes_the_demo_models(tmp_path: Path) -> None:
    said = init(tmp_path)
    assert "here are the demo models" in said and "Wrote config.toml" in said
    config = load_config(tmp_path / "config.toml")
    assert [(model.name, model.path) for model in config.models] == [
        (name, str(DEMO / name)) for name in ("demo-a", "demo-b")
    ]
    assert subprocess.run([DORMOUSE, "check"], cwd=tmp_path, capture_output=True).returncode == 0


def test_what_is_in_the_cache_and_in_directories_is_found(tmp_path: Path) -> None:
    cached(tmp_path, "mice/Dormouse-1.5", DEMO / "demo-a")
    cached(tmp_path, "rats/Dormouse-1.5", DEMO / "demo-b")
    cached(tmp_path, "mice/half", DEMO / "demo-a", "*.safetensors")
    strange = Path(shutil.copytree(DEMO / "demo-a", tmp_path / "models" / "strange"))
    (strange / "config.json").write_text('{"architectures": ["StrangeForCausalLM"], "model_type": "strange"}')
    shutil.copytree(DEMO / "demo-b", tmp_path / "models" / "local")
    shutil.copytree(DEMO / "demo-b", tmp_path / "models" / "odd ${NAME}")

    told = json.loads(init(tmp_path, "models", "--json"))
    models = {model["name"]: model["path"] for model in told["models"]}
    assert models == {
        "mice/Dormouse-1.5": "mice/Dormouse-1.5",
        "rats/Dormouse-1.5": "rats/Dormouse-1.5",
        "local": str(tmp_path / "models" / "local"),
    }
    reasons = {Path(model["path"]).name: model["reason"] for model in told["left_out"]}
    assert reasons.keys() == {"half", "strange", "odd ${NAME}"}
    assert "pull" in reasons["half"] and "Strange" in reasons["strange"]
    assert told["cores"] >= 1 and told["device_memory"] > GIB / 8

    text = (tmp_path / "config.toml").read_text()
    assert '[models."mice/Dormouse-1.5"]  # LlamaForCausalLM, 3.7 MiB of weights' in text
    assert "# - mice/half: only partly downloaded" in text
    assert [model.name for model in load_config(tmp_path / "config.toml").models] == list(models)


def test_what_else_lies_in_the_cache(tmp_path: Path) -> None:
    """No owner, no id at all, no weights that can be served."""
    cached(tmp_path, "dormouse", DEMO / "demo-a")
    cached(tmp_path, "mice/copy of it", DEMO / "demo-a")
    cached(tmp_path, "mice/dormouse.git", DEMO / "demo-a")
    gguf = tmp_path / "gguf"
    gguf.mkdir()
    (gguf / "dormouse-q4.gguf").write_bytes(b"GGUF")
    cached(tmp_path, "mice/dormouse-GGUF", gguf)

    told = json.loads(init(tmp_path, "--json"))
    snapshot = tmp_path / "hf" / "hub" / "models--dormouse" / "snapshots" / "c0ffee"
    assert {model["name"]: model["path"] for model in told["models"]} == {"dormouse": str(snapshot)}
    (left_out,) = told["left_out"]
    assert left_out["path"] == "mice/dormouse-GGUF" and "GGUF" in left_out["reason"]
    assert "pull" not in left_out["reason"]


def test_a_file_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("mine")
    assert (
        init(tmp_path, code=1)
        == "config.toml is there already: --force replaces it, --output names another\n"
    )
    assert (tmp_path / "config.toml").read_text() == "mine"
    assert "dormouse serve --config other.toml" in init(tmp_path, "--output", "other.toml")
    init(tmp_path, "--force")
    assert (tmp_path / "config.toml").read_text() != "mine"
    assert init(tmp_path, "nowhere", code=1) == "nowhere: no such directory\n"


def found(name: str, gib: float) -> Found:
    estimate = Estimate(
        weights_bytes=int(gib * GIB),
        least_bytes=int(gib * GIB),
        kv_bytes_per_token=1,
        max_model_len=4096,
        architecture="LlamaForCausalLM",
    )
    return Found(name=name, path="owner/name", estimate=estimate)


def machine(gib: int) -> Machine:
    memory = MemoryState(total=gib * GIB, available=gib * GIB, shared_with_host=True)
    return Machine(device="cpu", cores=8, memory=memory, host=memory)


@pytest.mark.parametrize(("sizes", "idle_timeout"), [((4, 4), 1800), ((10, 10), 300), ((20, 20), 300)])
def test_what_fits_with_ease_may_stay_awake_for_longer(
    tmp_path: Path, sizes: tuple[int, int], idle_timeout: float
) -> None:
    (tmp_path / "config.toml").write_text(
        config_text(machine(32), [found(f"m{number}", size) for number, size in enumerate(sizes)], [])
    )
    config = load_config(tmp_path / "config.toml")
    assert {model.idle_timeout for model in config.models} == {idle_timeout}
    lines = (tmp_path / "config.toml").read_text().splitlines()
    settings = [line for line in lines if line[:1] not in ("#", "[")]
    assert {line.index("# ") for line in settings if "# " in line} == {29}, "comments stand in a column"


def test_small_models_are_woken_at_start_as_long_as_nobody_misses_what_they_take() -> None:
    models = [found("large", 20), found("small", 2), *(found(f"tiny{number}", 1) for number in range(8))]
    assert preloads(machine(100), models) == [*(f"tiny{number}" for number in range(8)), "small"]
    assert preloads(machine(30), models) == [f"tiny{number}" for number in range(6)]
    assert preloads(machine(16), models) == []


def test_a_directory_without_models_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    said = init(tmp_path, "empty")
    assert "in the Hugging Face cache or in empty; here are the demo models" in said


def test_standard_output_is_not_a_file_of_the_name(tmp_path: Path) -> None:
    assert "/dev/stdout" in init(tmp_path, "--output", "-", code=2)
    assert not list(tmp_path.iterdir())
    assert "[models.demo-a]" in init(tmp_path, "--output", "/dev/stdout", "--force")
