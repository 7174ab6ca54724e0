"""What can never fit is refused before anything starts, and at its wake, with the same numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

import engine.demo
from gateway import cli
from gateway.config_file import load_config
from gateway.errors import ModelWakeFailed
from gateway.fleet import Fleet, SchedulerTimers, State

DEMO = Path(engine.demo.__file__).parent / "demo-a"


def config(directory: Path, limit: str) -> Path:
    file = directory / "config.toml"
    file.write_text(f'[memory]\ndevice_limit = "{limit}"\n[models.a]\npath = "{DEMO}"\n')
    return file


def refusal(file: Path, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as left:
        cli.main(["check", "--config", str(file)])
    assert left.value.code == 2
    line = capsys.readouterr().err
    where = f"{file}: models.a.path: "
    assert line.startswith(where)
    return line.removeprefix(where).strip()


def test_check_tells_what_a_model_needs_and_what_it_may_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = sum(path.stat().st_size for path in DEMO.glob("*.safetensors"))
    said = refusal(config(tmp_path, "2MiB"), capsys)
    assert said.endswith("and memory.device_limit allows 2.0 MiB")
    assert f"needs {size / 2**20 + 1:.1f} MiB for its weights and first KV" in said
    with pytest.raises(SystemExit) as left:
        cli.main(["check", "--config", str(config(tmp_path, f"{size // 2**20 + 2}MiB"))])
    assert left.value.code == 0


async def test_its_wake_is_refused_in_the_same_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = config(tmp_path, "2MiB")
    fleet = Fleet(load_config(file), SchedulerTimers())
    await fleet.start()
    try:
        with pytest.raises(ModelWakeFailed) as caught:
            async with fleet.lease("a"):
                pass
        assert caught.value.message.endswith(refusal(file, capsys))
        assert fleet.status_of("a").state is State.FAILED
        assert fleet.status_of("a").device_bytes < 2**20, "only what survives sleep"
    finally:
        await fleet.close()


async def test_status_tells_what_a_model_would_take_before_it_was_ever_loaded(tmp_path: Path) -> None:
    fleet = Fleet(load_config(config(tmp_path, "50%")), SchedulerTimers())
    await fleet.start()
    try:
        await fleet.opened("a")
        cold = fleet.status_of("a")
        assert cold.device_bytes == cold.kv_bytes == cold.host_bytes == cold.residue_bytes == 0
        assert cold.weights_bytes == cold.to_wake_bytes > 2**20
        await fleet.wake("a")
        awake = fleet.status_of("a")
        assert awake.to_wake_bytes == 0
        assert cold.weights_bytes <= awake.weights_bytes <= cold.weights_bytes + 2 * 2**20
        assert awake.device_bytes == awake.weights_bytes + awake.kv_bytes + awake.residue_bytes
    finally:
        await fleet.close()
