"""What can never fit is refused before anything starts, and at its wake, with the same numbers."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

import engine.demo
from engine import GenerateRequest, SamplingParams
from gateway import cli
from gateway.config_file import load_config
from gateway.errors import ModelWakeFailed
from gateway.fleet import Fleet, SchedulerTimers, State

DEMO = Path(engine.demo.__file__).parent / "demo-a"
MIB = 2**20


def config(directory: Path, limit: str) -> Path:
    file = directory / "config.toml"
    file.write_text(f'[memory]\ndevice_limit = "{limit}"\n[models.a]\npath = "{DEMO}"\n')
    return file


@pytest.fixture
def least() -> int:
    """Bytes that the model needs to be awake."""
    estimate = engine.estimate(str(DEMO))
    assert estimate is not None
    return estimate.least_bytes


def checked(file: Path) -> object:
    """The exit code of `dormouse check`."""
    with pytest.raises(SystemExit) as left:
        cli.main(["check", "--config", str(file)])
    return left.value.code


def refusal(file: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert checked(file) == 2
    line = capsys.readouterr().err
    where = f"{file}: models.a.path: "
    assert line.startswith(where)
    return line.removeprefix(where).strip()


def mib(line: str) -> tuple[float, float]:
    """What is needed and what is allowed, as a refusal tells it."""
    needed, allowed = re.findall(r"([\d.]+) MiB", line)
    return float(needed), float(allowed)


def test_check_tells_what_a_model_needs_and_what_it_may_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], least: int
) -> None:
    said = refusal(config(tmp_path, "2MiB"), capsys)
    assert said.endswith("and memory.device_limit allows 2.0 MiB")
    assert f"needs {math.ceil(least / MIB * 10) / 10} MiB for its weights and first KV" in said


def test_as_much_as_check_says_is_enough(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], least: int
) -> None:
    needed, allowed = mib(refusal(config(tmp_path, f"{least - 1}B"), capsys))
    assert allowed < least / MIB <= needed
    assert checked(config(tmp_path, f"{needed}MiB")) == 0


async def test_where_check_passes_a_wake_succeeds_and_the_model_answers(tmp_path: Path, least: int) -> None:
    file = config(tmp_path, f"{least}B")
    assert checked(file) == 0
    fleet = Fleet(load_config(file), SchedulerTimers())
    await fleet.start()
    try:
        async with fleet.lease("a") as lease:
            request = GenerateRequest(prompt_ids=(1,), sampling=SamplingParams(max_tokens=1, ignore_eos=True))
            steps = [deltas async for deltas in lease.generate(request)]
        assert [len(delta.token_ids) for deltas in steps for delta in deltas] == [1]
        assert fleet.status_of("a").device_bytes == least
    finally:
        await fleet.close()


@pytest.mark.parametrize("missing", [1, 1 * MIB, 3 * MIB])
async def test_where_check_refuses_a_wake_is_refused_in_the_same_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], least: int, missing: int
) -> None:
    file = config(tmp_path, f"{least - missing}B")
    fleet = Fleet(load_config(file), SchedulerTimers())
    await fleet.start()
    try:
        with pytest.raises(ModelWakeFailed) as caught:
            async with fleet.lease("a"):
                pass
        said = refusal(file, capsys)
        assert caught.value.message.endswith(said)
        assert mib(said)[0] > mib(said)[1]
        assert fleet.status_of("a").state is State.FAILED
        assert fleet.status_of("a").device_bytes < MIB, "only what survives sleep"
    finally:
        await fleet.close()


async def test_status_tells_what_a_model_would_take_before_it_was_ever_loaded(
    tmp_path: Path, least: int
) -> None:
    fleet = Fleet(load_config(config(tmp_path, "50%")), SchedulerTimers())
    await fleet.start()
    try:
        await fleet.opened("a")
        cold = fleet.status_of("a")
        assert cold.device_bytes == cold.kv_bytes == cold.host_bytes == cold.residue_bytes == 0
        assert cold.to_wake_bytes == least > cold.weights_bytes > MIB
        await fleet.wake("a")
        awake = fleet.status_of("a")
        assert awake.to_wake_bytes == 0
        assert cold.weights_bytes <= awake.weights_bytes <= cold.weights_bytes + 2 * MIB
        assert awake.device_bytes == awake.weights_bytes + awake.kv_bytes + awake.residue_bytes == least
    finally:
        await fleet.close()
