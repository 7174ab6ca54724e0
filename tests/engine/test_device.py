"""One worker a device: engines in turn, jobs between their steps, reads beside them, stuck steps seen."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from engine import open as open_engine
from engine.device import Device, StepClock, step_failed
from engine.devices import get_device
from engine.engine import TorchEngine
from engine.memory.cpu import CpuArena
from engine.runner import Prefill, Runner
from engine.types import DeviceError, EngineError, GenerateRequest, OutOfMemory, Progress
from tests.engine import harness
from tests.engine.conftest import OpenEngine
from tests.engine.harness import collect, greedy, paused, prompt, until


class Counter:
    """An engine that has work for ``left`` steps, and writes its name into ``log`` at each."""

    def __init__(self, name: str, left: int, log: list[str], step: Callable[[], None] = lambda: None) -> None:
        self.name, self.left, self.log, self._step = name, left, log, step

    @property
    def has_work(self) -> bool:
        return self.left > 0

    def fail(self, error: Exception) -> None:
        self.log.append(f"{self.name} failed: {error}")

    def step(self) -> None:
        self.left -= 1
        self.log.append(self.name)
        self._step()


@pytest.fixture
async def device() -> AsyncIterator[Device]:
    yield Device("cpu", CpuArena)


async def test_those_with_work_take_turns(device: Device) -> None:
    log: list[str] = []
    counters = [Counter(name, 0, log) for name in ("a", "b", "idle", "c")]
    for counter in counters:
        device.add(counter)
    async with paused(device):
        counters[0].left = counters[1].left = 30
        counters[3].left = 10
    await until(lambda: len(log) == 70)
    assert all(sorted(log[i : i + 3]) == ["a", "b", "c"] for i in range(0, 30, 3))
    assert all(sorted(log[i : i + 2]) == ["a", "b"] for i in range(30, 70, 2))


async def test_jobs_come_between_steps_and_cost_nobody_a_turn(device: Device) -> None:
    log: list[str] = []
    inside = threading.Event()

    def step() -> None:
        inside.set()
        time.sleep(0.0005)
        inside.clear()

    counters = [Counter("a", 0, log, step), Counter("b", 0, log, step)]
    for counter in counters:
        device.add(counter)
    async with paused(device):
        for counter in counters:
            counter.left = 200
    seen = [await device.between_steps(inside.is_set) for _ in range(60)]
    assert not any(seen)
    await until(lambda: not any(counter.has_work for counter in counters))
    assert all({*log[i : i + 2]} == {"a", "b"} for i in range(0, 400, 2)), "a job cost an engine its turn"


async def test_a_job_runs_though_its_caller_leaves_and_its_failure_is_its_callers(device: Device) -> None:
    device.add(Counter("a", 0, []))
    done = threading.Event()
    async with paused(device):
        leaving = asyncio.create_task(device.between_steps(done.set))
        await asyncio.sleep(0)
        leaving.cancel()
    await until(done.is_set)

    def fail() -> None:
        raise EngineError("of this job")

    with pytest.raises(EngineError, match="of this job"):
        await device.between_steps(fail)
    assert await device.between_steps(lambda: 7) == 7


async def test_an_engine_that_has_left_is_not_stepped(device: Device) -> None:
    log: list[str] = []
    counter = Counter("a", 0, log)
    device.add(counter)
    device.remove(counter)
    device.remove(counter)
    counter.left = 5
    assert await device.between_steps(lambda: len(log)) == 0


async def test_an_engine_that_raises_is_left_out_and_the_others_go_on(device: Device) -> None:
    log: list[str] = []

    def fail() -> None:
        raise RuntimeError("of this step")

    counters = [Counter("a", 0, log), Counter("b", 0, log, fail)]
    for counter in counters:
        device.add(counter)
    async with paused(device):
        counters[0].left = counters[1].left = 3
    await until(lambda: log.count("a") == 3)
    assert log.count("b") == 1
    assert log.count("b failed: of this step") == 1


async def test_an_engine_that_breaks_down_says_so_and_ends_its_streams(
    llama: Path, qwen3: Path, awake: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, other = await awake(llama), await awake(qwen3)

    def collect_newcomers() -> None:
        raise RuntimeError("of this test")

    monkeypatch.setattr(broken._stepper, "_collect", collect_newcomers)
    with pytest.raises(EngineError, match="broke down"):
        await collect(broken, prompt(4), greedy(3))
    fault = broken.fault()
    assert fault
    assert "of this test" in fault
    with pytest.raises(EngineError, match="broke down"):
        await collect(broken, prompt(4), greedy(3))
    assert other.fault() is None
    assert len((await collect(other, prompt(4), greedy(3))).token_ids) == 3
    monkeypatch.undo()


def test_there_is_one_device_of_a_name_however_many_ask_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.devices._devices", {})
    monkeypatch.setattr("engine.devices.tune_allocator", lambda: time.sleep(0.02))
    begin = threading.Barrier(8)

    def get(name: str) -> Device:
        begin.wait()
        return get_device(name)

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(get, ["cpu", "auto"] * 4))) == 1


async def test_two_engines_interleave(llama: Path, qwen3: Path, awake: OpenEngine) -> None:
    one, other = await awake(llama), await awake(qwen3)
    log: list[TorchEngine] = []
    async with paused(one._device):
        watch(log, one, other)
        tasks = [asyncio.create_task(collect(engine, prompt(9), greedy(30))) for engine in (one, other)]
        await until(lambda: all(engine._stepper.has_work for engine in (one, other)))  # type: ignore[union-attr]
    answers = await asyncio.gather(*tasks)
    assert all(len(answer.token_ids) == 30 for answer in answers)
    assert all({*log[i : i + 2]} == {one, other} for i in range(0, 60, 2))


def watch(log: list[TorchEngine], *engines: TorchEngine) -> None:
    """Write down who steps."""
    for engine in engines:
        stepper = engine._stepper
        assert stepper
        step = stepper.step

        def logged(engine: TorchEngine = engine, step: Callable[[], None] = step) -> None:
            log.append(engine)
            step()

        stepper.step = logged  # type: ignore[method-assign]


async def test_a_deep_wake_does_not_stall_anothers_stream(
    llama: Path, qwen3: Path, awake: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk hangs until the stream has had a hundred tokens: it must not wait for the disk."""
    talking, waking = await awake(llama), await awake(qwen3)
    await waking.sleep(2)
    disk, reading, real = threading.Event(), threading.Event(), os.preadv

    def preadv(*args: Any) -> int:
        reading.set()
        assert disk.wait(harness.patience)
        return real(*args)

    monkeypatch.setattr("engine.reader.os.preadv", preadv)
    wake = asyncio.create_task(waking.wake())
    await until(reading.is_set)
    answer = await collect(talking, prompt(9), greedy(100))
    assert len(answer.token_ids) == 100
    assert not wake.done(), "the stream had to wait for the disk"
    progress = waking.progress()
    assert progress
    assert (progress.phase, progress.done) == ("weights", 0)
    disk.set()
    assert (await wake).bytes > 0


async def test_a_wake_that_waits_tells_nothing_of_the_one_before(llama: Path, awake: OpenEngine) -> None:
    engine = await awake(llama)
    await engine.sleep(2)
    with engine._loaded().weights._lock:
        wake = asyncio.create_task(engine.wake())
        await until(lambda: engine.progress() is not None)
        assert engine.progress() == Progress(phase="weights", done=0, total=engine._loaded().weights.nbytes)
    await wake


async def test_a_cancelled_wake_ends_when_its_reads_have_ended(
    llama: Path, awake: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that nobody releases memory that a reader still writes to."""
    engine = await awake(llama)
    expected = await collect(engine, prompt(9), greedy(5))
    await engine.sleep(2)
    disk, reading, real = threading.Event(), threading.Event(), os.preadv

    def preadv(*args: Any) -> int:
        reading.set()
        assert disk.wait(harness.patience)
        return real(*args)

    monkeypatch.setattr("engine.reader.os.preadv", preadv)
    for _ in range(2):
        disk.clear()
        reading.clear()
        wake = asyncio.create_task(engine.wake())
        await until(reading.is_set)
        wake.cancel()
        asyncio.get_running_loop().call_later(0.02, disk.set)
        with pytest.raises(asyncio.CancelledError):
            await wake
        assert engine.footprint().weights > 0, "it went on behind the next one's back"
        await engine.sleep(2)
        assert engine.footprint().weights == 0
    await engine.wake()
    assert await collect(engine, prompt(9), greedy(5)) == expected


async def test_a_cancelled_load_is_not_done_twice(llama: Path) -> None:
    opened = open_engine(str(llama), "cpu")
    assert isinstance(opened, TorchEngine)
    loading = asyncio.create_task(opened.load())
    await asyncio.sleep(0)
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    model = opened._model
    assert model is not None
    await opened.load()
    assert opened._model is model
    await opened.wake()
    assert len((await collect(opened, prompt(9), greedy(5))).token_ids) == 5
    await opened.close()


class Clock:
    """time.monotonic with days to spare."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = 0.0
        real = time.monotonic
        monkeypatch.setattr("engine.device.time.monotonic", lambda: real() + self.ahead)


def test_a_step_is_stuck_after_a_minute_or_twenty_times_the_slowest(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("engine.device.time.monotonic", lambda: now)
    clock = StepClock()
    assert clock.stuck() is None
    assert clock.last_step_at is None

    def take(seconds: float) -> float | None:
        """Whether a step that runs so long is stuck at its end."""
        nonlocal now
        with clock:
            now += seconds
            return clock.stuck()

    assert take(59) is None
    assert take(61) is None, "20 times 59 s is allowed now"
    assert clock.last_step_at == 1120
    for _ in range(100):
        take(0.1)
    assert take(61) == 61, "only the last hundred count"
    assert clock.stuck() is None
    for _ in range(100):
        take(5)
    assert take(99) is None
    for _ in range(100):
        take(5)
    assert take(101) == 101


async def test_a_stuck_step_shows_in_fault_and_of_that_engine_only(
    llama: Path, qwen3: Path, awake: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, healthy = await awake(llama), await awake(qwen3)
    clock = Clock(monkeypatch)
    go_on, inside = threading.Event(), threading.Event()

    def hang(scheduled: Any) -> None:
        inside.set()
        assert go_on.wait(harness.patience)

    harness.before_passes(monkeypatch, hang)
    before = stuck.last_step_at
    stream = stuck.generate(GenerateRequest(prompt_ids=prompt(5), sampling=greedy(3)))
    first = asyncio.ensure_future(anext(stream))
    await until(inside.is_set)
    assert stuck.fault() is None
    clock.ahead = 100
    fault = stuck.fault()
    assert fault
    assert "100 s" in fault
    assert healthy.fault() is None
    go_on.set()
    await first
    await until(lambda: stuck.fault() is None)
    assert stuck.last_step_at != before
    await stream.aclose()


async def test_a_prompt_lets_another_engine_go_first_behind_any_layer(
    llama: Path, qwen3: Path, awake: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only when its whole chunk is computed, which may take seconds."""
    busy, other = await awake(llama), await awake(qwen3)
    layers: list[int] = []
    before_other: list[int] = []
    arrived, real = threading.Event(), Runner.advance

    def advance(runner: Runner, prefill: Prefill) -> bool:
        if runner is busy._model.runner:  # type: ignore[union-attr]
            layers.append(prefill.forward.layer)
            assert arrived.wait(harness.patience)
        else:
            before_other.append(len(layers))
        return real(runner, prefill)

    monkeypatch.setattr(Runner, "advance", advance)
    long = asyncio.create_task(collect(busy, prompt(30), greedy(1)))
    await until(lambda: bool(layers))
    short = asyncio.create_task(collect(other, prompt(9), greedy(1)))
    await until(lambda: other._stepper.has_work)  # type: ignore[union-attr]
    arrived.set()
    await asyncio.gather(long, short)
    assert len(layers) > 1
    assert before_other[0] == 1, "the other waited for more than the layer that was being computed"


def test_kernels_of_shapes_long_past_are_given_back() -> None:
    """Each new number of rows has its own, of half a MiB; a process sees hundreds. In a process of its own,
    since the first product settles how many are kept."""
    grown = []
    for kept in ({"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "1000", "LRU_CACHE_CAPACITY": "1000"}, {}):
        script, environment = Path(__file__).with_name("many_shapes.py"), {**os.environ, **kept}
        done = subprocess.run([sys.executable, script], env=environment, capture_output=True, check=True)
        grown.append(int(done.stdout))
    unlimited, limited = grown
    assert limited < unlimited / 3, grown


def test_an_error_of_the_device_is_told_from_one_of_the_step() -> None:
    broken = RuntimeError("CUDA error: an illegal memory access was encountered")
    full = torch.OutOfMemoryError("CUDA out of memory. CUDA error: none")
    assert type(step_failed(broken)) is DeviceError
    launched = RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered")
    assert type(step_failed(launched)) is DeviceError
    for short in (
        "CUDA error: out of memory",
        "Triton Error [CUDA]: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ):
        assert type(step_failed(RuntimeError(short))) is EngineError
    assert type(step_failed(full)) is EngineError
    assert type(step_failed(ValueError("CUDA error"))) is EngineError
    known = OutOfMemory(2, 1)
    assert step_failed(known) is known
