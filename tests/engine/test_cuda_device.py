"""Whole engines whose memory is a CUDA device's, as far as that can be had without one: tensors over the fake
driver's memory are RAM, so models really run in what was mapped, copied and read through the ring."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import engine
from engine.device import Device
from engine.devices import cuda_device, get_device
from engine.engine import TorchEngine
from engine.memory.driver import memory_state
from engine.memory.system import SystemMemory
from engine.types import CheckpointError, DeviceError, EngineError, EngineOptions, Level, MemoryState
from tests.engine.encoders import make_encoder
from tests.engine.fake_device import install_device
from tests.engine.harness import collect, greedy, prompt, together
from tests.engine.memory.fake_driver import GRANULARITY, FakeDriver

MIB = 2**20
RING = 2 * MIB
"""Set aside for the ring."""

PROMPTS = [prompt(length, seed=length) for length in (3, 200, 17)]

Open = Callable[..., Awaitable[TorchEngine]]


@pytest.fixture
def driver() -> FakeDriver:
    return FakeDriver(memory=256 * 2**20)


@pytest.fixture
def device(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> Device:
    return install_device(monkeypatch, driver)


@pytest.fixture
async def awake(driver: FakeDriver, device: Device) -> AsyncIterator[Open]:
    """Opens engines that are awake; closes them after the test, when nothing of theirs may be left."""
    opened: list[TorchEngine] = []

    async def open_and_wake(path: Path, **options: Any) -> TorchEngine:
        opened.append(TorchEngine(str(path), "cuda", EngineOptions(**options)))
        await opened[-1].wake()
        return opened[-1]

    yield open_and_wake
    for one in opened:
        await one.close()
    driver.assert_idle()
    assert not driver.reserved
    assert len(driver.registered) <= 1, "the ring stays with its device"
    assert device.budget.used == 0


async def test_the_same_answers_as_on_a_cpu(
    llama: Path, qwen3: Path, awake: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (llama, qwen3):
        there = await awake(path)
        with monkeypatch.context() as patch:
            patch.setattr("engine.engine.get_device", get_device)
            here = TorchEngine(str(path), "cpu", EngineOptions())
        await here.wake()
        assert await together(there, PROMPTS, 8) == await together(here, PROMPTS, 8)
        await here.close()


async def test_two_devices_have_nothing_in_common(
    llama: Path, qwen3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.devices._RING_BUFFER", 32 * 1024)
    drivers = {name: FakeDriver(memory=256 * MIB) for name in ("cuda:0", "cuda:1")}
    devices = {name: cuda_device(driver, "cpu", driver.tensor) for name, driver in drivers.items()}
    monkeypatch.setattr("engine.engine.get_device", devices.__getitem__)
    one = TorchEngine(str(llama), "cuda:0", EngineOptions())
    other = TorchEngine(str(qwen3), "cuda:1", EngineOptions())
    await one.wake()
    assert drivers["cuda:1"].used == 0
    await other.wake()
    before = await asyncio.gather(together(one, PROMPTS, 8), together(other, PROMPTS, 8))
    held = drivers["cuda:1"].used
    levels: list[Level] = [1, 2]
    for level in levels:
        await one.sleep(level)
        assert (drivers["cuda:0"].used, drivers["cuda:1"].used) == (0, held)
        assert await together(other, PROMPTS, 8) == before[1]
        await one.wake()
    assert await together(one, PROMPTS, 8) == before[0]
    for made in (one, other):
        await made.close()
    for driver in drivers.values():
        driver.assert_idle()


async def test_what_torch_only_keeps_makes_room_for_a_wake(
    llama: Path, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver.make_current()
    kept = [driver.mem_create(driver.memory - 2 * GRANULARITY)]
    monkeypatch.setattr("engine.devices.give_back", lambda: driver.mem_release(kept.pop()))
    install_device(monkeypatch, driver)
    engine = TorchEngine(str(llama), "cuda", EngineOptions())
    await engine.wake()
    assert not kept
    await engine.close()
    driver.assert_idle()


@pytest.mark.parametrize("levels", [[1, 1, 1], [2, 2], [1, 2, 1, 2]])
async def test_answers_after_any_sleeps(
    qwen3: Path, awake: Open, driver: FakeDriver, levels: list[Level]
) -> None:
    engine = await awake(qwen3)
    before = await together(engine, PROMPTS, 8)
    for level in levels:
        await engine.sleep(level)
        driver.assert_idle()
        await engine.wake()
        assert await together(engine, PROMPTS, 8) == before


async def test_what_is_held_where(llama: Path, awake: Open, driver: FakeDriver) -> None:
    engine = await awake(llama)
    await together(engine, PROMPTS, 2)
    full = engine.footprint()
    assert driver.used == full.weights + full.kv
    assert full.host_copy >= full.weights, "made while the files were read"
    report = await engine.sleep(1)
    asleep = engine.footprint()
    assert report.bytes == full.weights + full.kv
    assert (asleep.weights, asleep.kv, driver.used) == (0, 0, 0)
    assert asleep.host_copy == full.host_copy
    assert asleep.to_wake >= full.weights
    assert (await engine.wake()).bytes == full.weights
    assert engine.footprint().host_copy == asleep.host_copy, "it is kept for the next sleep"
    await engine.sleep(2)
    deep = engine.footprint()
    assert (deep.weights, deep.kv, deep.host_copy, driver.used) == (0, 0, 0, 0)


@pytest.mark.parametrize("copy_early", [True, False])
async def test_a_light_sleep_copies_nothing_if_it_was_done(
    llama: Path, awake: Open, driver: FakeDriver, copy_early: bool
) -> None:
    engine = await awake(llama, copy_early=copy_early)
    for copies in (not copy_early, False):
        driver.calls.clear()
        await engine.sleep(1)
        assert ("copy_to_host" in driver.names) == ("host_register" in driver.names) == copies
        assert copies or set(driver.names) == {"mem_unmap", "mem_release"}
        await engine.wake()


async def test_what_is_copied_early_needs_no_ring(llama: Path, awake: Open, driver: FakeDriver) -> None:
    engine = await awake(llama)
    assert len(driver.registered) == 1
    await engine.sleep(2)
    await engine.wake()
    assert len(driver.registered) == 1, "through the ring, and not copied again before it is needed"
    assert engine.footprint().host_copy == 0


async def test_a_light_sleeper_needs_no_file(
    llama: Path, awake: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await awake(llama)
    before = await collect(engine, prompt(9), greedy(5))
    await engine.sleep(1)
    monkeypatch.setattr("engine.reader.os.open", None)
    await engine.wake()
    assert await collect(engine, prompt(9), greedy(5)) == before


async def test_a_light_sleeper_can_be_put_to_deeper_sleep(
    llama: Path, awake: Open, driver: FakeDriver
) -> None:
    engine = await awake(llama)
    before = await collect(engine, prompt(9), greedy(5))
    await engine.sleep(1)
    assert len(driver.registered) == 1
    await engine.sleep(2)
    assert (len(driver.registered), engine.footprint().host_copy) == (0, 0)
    await engine.wake()
    assert await collect(engine, prompt(9), greedy(5)) == before


async def test_a_light_sleep_without_ram_for_it_is_a_deep_one(
    llama: Path, awake: Open, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await awake(llama, copy_early=False)
    before = await collect(engine, prompt(9), greedy(5))
    with monkeypatch.context() as patch:
        no_ram(patch)
        await engine.sleep(1)
    driver.assert_idle()
    assert (engine.footprint().weights, engine.footprint().host_copy) == (0, 0)
    await engine.wake()
    assert await collect(engine, prompt(9), greedy(5)) == before


def no_ram(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on nobody may touch any."""
    nothing = MemoryState(total=2**30, available=0, shared_with_host=True)
    monkeypatch.setattr(SystemMemory, "state", lambda self: nothing)


async def test_without_ram_for_a_copy_it_is_made_by_the_first_sleep(
    llama: Path, awake: Open, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring = await awake(llama, copy_early=False)  # which leaves the ring
    before = await collect(ring, prompt(9), greedy(5))
    with monkeypatch.context() as patch:
        no_ram(patch)
        engine = await awake(llama)
    assert engine.footprint().host_copy == 0
    assert await collect(engine, prompt(9), greedy(5)) == before
    await engine.sleep(1)
    assert engine.footprint().host_copy > 0
    await engine.wake()
    assert await collect(engine, prompt(9), greedy(5)) == before


async def test_a_spare_copy_makes_room_for_that_of_a_sleeper(
    llama: Path, awake: Open, driver: FakeDriver, device: Device
) -> None:
    """Two whose copies do not fit together: whoever falls asleep has it."""
    room = RING + 2 * MIB
    one, two = [await awake(llama, host_limit=room) for _ in range(2)]
    said = await together(one, PROMPTS, 5)
    assert (one.footprint().host_copy, two.footprint().host_copy) == (2 * MIB, 0)
    for sleeper, other in ((two, one), (one, two), (two, one)):
        await sleeper.sleep(1)
        assert (sleeper.footprint().host_copy, other.footprint().host_copy) == (2 * MIB, 0)
        await other.sleep(1)
        assert other.footprint().host_copy == 0, "a sleeper's copy is not taken"
        for each in (sleeper, other):
            await each.wake()
            assert await together(each, PROMPTS, 5) == said
    assert sum(map(len, driver.registered.values())) <= room


async def test_a_copy_is_given_back_when_asked_while_its_model_is_awake(
    llama: Path, awake: Open, driver: FakeDriver
) -> None:
    engine = await awake(llama)
    before = await collect(engine, prompt(9), greedy(5))
    assert [await engine.trim_copy() for _ in range(2)] == [2 * MIB, 0]
    assert (engine.footprint().host_copy, driver.registered) == (0, {})
    await engine.sleep(1)
    assert await engine.trim_copy() == 0, "a sleeper needs it"
    assert engine.footprint().host_copy == 2 * MIB
    await engine.wake()
    assert await collect(engine, prompt(9), greedy(5)) == before


@pytest.mark.parametrize("call", ["stream_create", "copy_to_host"])
async def test_a_copy_out_that_fails_leaves_no_copy(
    llama: Path, awake: Open, driver: FakeDriver, call: str
) -> None:
    engine = await awake(llama, copy_early=False)
    before = await collect(engine, prompt(9), greedy(5))
    driver.fail(call)
    await engine.sleep(1)
    driver.assert_idle()
    assert engine.footprint().host_copy == 0
    assert len(driver.registered) == 1, "the ring"
    await engine.wake()
    assert await collect(engine, prompt(9), greedy(5)) == before


async def test_spare_copies_beyond_a_lower_limit_are_given_back(
    llama: Path, awake: Open, driver: FakeDriver, device: Device
) -> None:
    one, two, three = [await awake(llama) for _ in range(3)]
    await two.sleep(1)
    await one.sleep(1)
    await one.wake()
    device.limit_memory(None, RING + 4 * MIB)
    assert [each.footprint().host_copy // MIB for each in (one, two, three)] == [2, 2, 0]
    device.limit_memory(None, 0)
    assert [each.footprint().host_copy // MIB for each in (one, two, three)] == [0, 2, 0]
    await two.wake()
    assert not driver.registered


@pytest.mark.parametrize("level", [1, 2])
async def test_a_wake_that_fails_half_way_gives_back_and_the_next_is_whole(
    llama: Path, awake: Open, driver: FakeDriver, level: Level
) -> None:
    engine = await awake(llama)
    before = await collect(engine, prompt(9), greedy(5))
    await engine.sleep(level)
    locked = engine.footprint().host_copy
    for call in ("mem_create", "mem_map", "mem_set_access", "copy_to_device"):
        driver.fail(call)
        with pytest.raises(EngineError, match=call):
            await engine.wake()
        driver.assert_idle()
        assert (engine.footprint().weights, engine.footprint().kv) == (0, 0)
        assert engine.footprint().host_copy == locked
    await engine.wake()
    assert await collect(engine, prompt(9), greedy(5)) == before


async def test_a_first_wake_that_fails_half_way_gives_back_the_copy_too(
    llama: Path, awake: Open, driver: FakeDriver
) -> None:
    calls = "host_register", "stream_create", "mem_create", "mem_map", "mem_set_access", "copy_to_device"
    engine = TorchEngine(str(llama), "cuda", EngineOptions())
    for call in calls:
        driver.fail(call)
        with pytest.raises(EngineError, match=call):
            await engine.wake()
        driver.assert_idle()
        assert not driver.registered
        assert engine.footprint().host_copy == 0
    await engine.wake()
    assert engine.footprint().host_copy > 0, "the next may"
    await engine.close()


@pytest.mark.parametrize("call", ["mem_unmap", "mem_release"])
async def test_memory_that_cannot_be_given_back_is_a_broken_device(
    llama: Path, device: Device, driver: FakeDriver, call: str
) -> None:
    """What is still mapped would be in the way of every later wake, and counted nowhere."""
    engine = TorchEngine(str(llama), "cuda", EngineOptions())
    await engine.wake()
    driver.fail(call)
    with pytest.raises(DeviceError, match=call):
        await engine.sleep(1)
    await engine.close()


async def test_files_that_changed_fail_a_deep_wake(llama: Path, awake: Open, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(llama, tmp_path / "copy"))
    engine = await awake(copy)
    await engine.sleep(2)
    os.utime(copy / "model.safetensors")
    with pytest.raises(CheckpointError, match="has changed since"):
        await engine.wake()
    await engine.reload_weights()
    await engine.wake()


@pytest.mark.parametrize("asleep", [False, True])
async def test_reloading_leaves_nothing_of_the_old_weights(
    llama: Path, awake: Open, tmp_path: Path, asleep: bool
) -> None:
    copy = Path(shutil.copytree(llama, tmp_path / "copy"))
    engine = await awake(copy)
    old = await collect(engine, prompt(9), greedy(8))
    await engine.sleep(1)
    if not asleep:
        await engine.wake()
    tensors = {name: tensor.flip(0) for name, tensor in load_file(copy / "model.safetensors").items()}
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    await engine.reload_weights()
    await engine.wake()
    new = await collect(engine, prompt(9), greedy(8))
    assert new != old
    await engine.sleep(1)
    await engine.wake()
    assert await collect(engine, prompt(9), greedy(8)) == new


async def test_several_models_share_the_device(
    llama: Path, qwen3: Path, awake: Open, driver: FakeDriver
) -> None:
    one, two = await awake(llama), await awake(qwen3)
    said = [await together(each, PROMPTS, 5) for each in (one, two)]
    for _ in range(3):
        await one.sleep(1)
        assert await together(two, PROMPTS, 5) == said[1]
        await one.wake()
        await two.sleep(2)
        assert await together(one, PROMPTS, 5) == said[0]
        await two.wake()
    assert driver.used == sum(each.footprint().device - each.footprint().residue for each in (one, two))


async def test_an_encoder_too(tmp_path: Path, awake: Open) -> None:
    engine = await awake(make_encoder(tmp_path, "Bert"))
    inputs = [[1, 5, 9], [2] * 20]
    before = await engine.embed(inputs)
    for level in (1, 2):
        await engine.sleep(level)  # type: ignore[arg-type]
        await engine.wake()
        assert await engine.embed(inputs) == before


async def test_kv_is_committed_in_whole_chunks(llama: Path, awake: Open, driver: FakeDriver) -> None:
    engine = await awake(llama)
    memory = engine._model.kv.memory  # type: ignore[union-attr]
    assert memory.arena.granularity == memory.chunk_bytes
    assert memory.chunk_bytes % GRANULARITY == 0
    long = prompt(300, seed=9)
    before = await collect(engine, long, greedy(30))
    assert engine.footprint().kv > 0
    await engine.trim_kv()
    assert engine.footprint().kv == 0
    assert await collect(engine, long, greedy(30)) == before


async def test_what_it_needs_is_known_before_it_is_loaded(llama: Path, awake: Open, device: Device) -> None:
    engine = TorchEngine(str(llama), "cuda", EngineOptions())
    cold = engine.footprint().to_wake
    await engine.wake()
    held = engine.footprint()
    await engine.close()
    assert (held.device, held.to_wake) == (cold, 0)


def test_an_estimate_is_of_the_device(llama: Path) -> None:
    here, there = (engine.estimate(str(llama), device=name) for name in ("cpu", "cuda:7"))
    assert here and there
    assert there.weights_bytes == here.weights_bytes
    assert there.least_bytes > here.least_bytes, "a chunk of KV is whole large pages"


async def test_memory_goes_when_the_steps_on_the_device_are_over(
    llama: Path, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prompt that is given up half-way has layers queued, whose memory is wanted at once."""
    monkeypatch.setattr("engine.devices.finish_steps", lambda device: driver.calls.append(("finish",)))
    install_device(monkeypatch, driver)
    engine = TorchEngine(str(llama), "cuda", EngineOptions())
    await engine.wake()
    await collect(engine, prompt(300, seed=9), greedy(30))
    driver.calls.clear()
    assert await engine.trim_kv() > 0
    await engine.sleep(2)
    await engine.close()
    assert "mem_unmap" in driver.names
    waited = False
    for name in driver.names:
        waited = name == "finish" or (waited and name in ("mem_unmap", "mem_release", "make_current"))
        assert waited or name != "mem_unmap"


def test_the_state_of_its_memory(driver: FakeDriver) -> None:
    driver.make_current()
    driver.mem_create(2**20)
    state = memory_state(driver)
    assert (state.total, state.available) == (256 * 2**20, 255 * 2**20)
    assert not state.shared_with_host


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:7", "tpu"])
def test_a_device_that_is_not_here(name: str, llama: Path) -> None:
    with pytest.raises(EngineError, match=f"no such device here: {name}"):
        engine.memory_state(name)
    with pytest.raises(EngineError, match=f"no such device here: {name}"):
        engine.open(str(llama), name)


def test_a_driver_without_a_torch_for_it(monkeypatch: pytest.MonkeyPatch, driver: FakeDriver) -> None:
    monkeypatch.setattr("engine.devices.device_name", lambda name: "cuda:0")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(EngineError, match=r"no such device here: cuda:0 \(this torch is not made for CUDA\)"):
        get_device("cuda")
