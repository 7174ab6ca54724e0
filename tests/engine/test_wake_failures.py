"""Wakes that fail half-way: a clear error, all memory back, nobody else harmed, a whole wake after it."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.device import Device
from engine.engine import TorchEngine
from engine.memory.cpu import CpuArena
from engine.memory.system import SystemMemory
from engine.types import CheckpointError, EngineError, GenerateRequest, MemoryState, OutOfMemory
from tests.engine.checkpoints import make_checkpoint
from tests.engine.conftest import OpenEngine
from tests.engine.harness import collect, edit_json, greedy, prompt

FILE = "model.safetensors"


class ScarceMemory(SystemMemory):
    """The system's memory, but with ``left`` bytes free when that is set."""

    left: int | None = None

    def state(self) -> MemoryState:
        real = super().state()
        if self.left is None:
            return real
        return MemoryState(total=real.total, available=self.left, shared_with_host=True)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScarceMemory]:
    """What engines that are opened in this test see as the system's memory."""
    scarce = ScarceMemory()
    device = Device("cpu", partial(CpuArena, memory=scarce))
    monkeypatch.setattr("engine.devices._devices", {"cpu": device})
    yield scarce
    assert scarce._claimed == 0, "a claim was never given back"


@pytest.fixture
def copy(llama: Path, tmp_path: Path) -> Path:
    """A checkpoint that the test may damage."""
    return Path(shutil.copytree(llama, tmp_path / "copy"))


def committed(engine: TorchEngine) -> int:
    return sum(arena.committed for arena in engine._model.arenas)  # type: ignore[union-attr]


def first_bytes(engine: TorchEngine) -> torch.Tensor:
    return engine._model.arenas[0].tensor[:4096].clone()  # type: ignore[union-attr]


def remove(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 100)


def touch(path: Path) -> None:
    os.utime(path)


def change_a_byte(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-10, os.SEEK_END)
        file.write(b"X")


def replace(path: Path) -> None:
    """By a file of the very same bytes and times."""
    other = path.with_suffix(".new")
    shutil.copy2(path, other)
    other.replace(path)


def become_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def shrink_to_nothing(path: Path) -> None:
    os.truncate(path, 0)


DAMAGES = [remove, truncate, touch, change_a_byte, replace, become_a_directory, shrink_to_nothing]


async def assert_wake_fails(engine: TorchEngine, error: type[EngineError]) -> EngineError:
    with pytest.raises(error) as caught:
        await engine.wake()
    assert committed(engine) == 0
    assert (engine.footprint().weights, engine.footprint().kv) == (0, 0)
    assert not first_bytes(engine).any()
    assert engine.progress() is None
    with pytest.raises(EngineError, match="not awake"):
        await collect(engine, prompt(4), greedy(1))
    return caught.value


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_changed_file_fails_the_wake_and_nothing_else(
    copy: Path, llama: Path, awake: OpenEngine, damage: Callable[[Path], None]
) -> None:
    other, engine = await awake(llama), await awake(copy)
    expected = await collect(other, prompt(9), greedy(60))
    await engine.sleep(2)
    stream = asyncio.create_task(collect(other, prompt(9), greedy(60)))
    damage(copy / FILE)
    error = await assert_wake_fails(engine, CheckpointError)
    assert isinstance(error, CheckpointError)
    assert FILE in error.reason
    assert str(copy) not in error.reason, "the server's paths are not for clients"
    assert str(copy) in str(error), "the operator is told which file"
    assert await stream == expected


@pytest.mark.parametrize("damage", DAMAGES)
async def test_light_sleep_needs_no_file(
    copy: Path, awake: OpenEngine, damage: Callable[[Path], None]
) -> None:
    engine = await awake(copy)
    expected = await collect(engine, prompt(9), greedy(5))
    await engine.sleep(1)
    damage(copy / FILE)
    await engine.wake()
    assert await collect(engine, prompt(9), greedy(5)) == expected


@pytest.mark.parametrize("damage", [truncate, touch, change_a_byte, shrink_to_nothing])
async def test_a_file_that_changes_while_it_is_read_fails_the_wake(
    copy: Path, awake: OpenEngine, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None]
) -> None:
    engine = await awake(copy)
    await engine.sleep(2)
    monkeypatch.setattr("engine.reader._PIECE", 16384)
    on_read(monkeypatch, 3, lambda: damage(copy / FILE))
    await assert_wake_fails(engine, CheckpointError)


async def test_a_file_that_is_replaced_while_it_is_read_is_read_to_its_end(
    copy: Path, awake: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The open file is still the old one: right now, and found out at the next wake."""
    engine = await awake(copy)
    expected = await collect(engine, prompt(9), greedy(5))
    await engine.sleep(2)
    on_read(monkeypatch, 1, lambda: replace(copy / FILE))
    await engine.wake()
    assert await collect(engine, prompt(9), greedy(5)) == expected
    await engine.sleep(2)
    await assert_wake_fails(engine, CheckpointError)


def on_read(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], None]) -> None:
    """Do ``act`` once, before the ``number``th read."""
    real, calls = os.preadv, iter(range(10**9))

    def preadv(*args: Any) -> int:
        if next(calls) == number - 1:
            act()
        return real(*args)

    monkeypatch.setattr("engine.reader.os.preadv", preadv)


def fail_reads(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def act() -> None:
        raise error

    monkeypatch.setattr("engine.reader._PIECE", 16384)
    on_read(monkeypatch, 3, act)


@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (OSError(errno.EIO, "Input/output error"), CheckpointError),
        (OSError(errno.ESTALE, "Stale file handle"), CheckpointError),
        (MemoryError(), MemoryError),
    ],
)
async def test_an_error_in_reading_and_a_good_wake_after_it(
    llama: Path, awake: OpenEngine, monkeypatch: pytest.MonkeyPatch, error: Exception, seen: Any
) -> None:
    engine = await awake(llama)
    expected = await collect(engine, prompt(9), greedy(20))
    await engine.sleep(2)
    with monkeypatch.context() as patch:
        fail_reads(patch, error)
        await assert_wake_fails(engine, seen)
    await engine.wake()
    assert await collect(engine, prompt(9), greedy(20)) == expected


@pytest.mark.parametrize("served", ["auto", "bfloat16"])
async def test_reads_that_come_up_short_are_gone_on_with(
    llama: Path, awake: OpenEngine, monkeypatch: pytest.MonkeyPatch, served: str
) -> None:
    engine = await awake(llama, dtype=served)
    whole = engine._model.arenas[0].tensor.clone()  # type: ignore[union-attr]
    await engine.sleep(2)
    real, sizes = os.preadv, iter(range(1, 10**9))

    def preadv(fd: int, views: list[memoryview], offset: int) -> int:
        """1 byte, 1001 bytes, 2001 bytes, ...: within a target, at its border, and across many."""
        left = 1 + next(sizes) % 17 * 1000
        some = []
        for view in views:
            some.append(view[:left])
            left -= len(some[-1])
        return real(fd, some, offset)

    monkeypatch.setattr("engine.reader.os.preadv", preadv)
    await engine.wake()
    assert torch.equal(engine._model.arenas[0].tensor, whole)  # type: ignore[union-attr]


async def test_no_memory_for_the_weights(llama: Path, memory: ScarceMemory, awake: OpenEngine) -> None:
    other, engine = await awake(llama), await awake(llama)
    expected = await collect(engine, prompt(9), greedy(20))
    assert await collect(other, prompt(9), greedy(20)) == expected
    await engine.sleep(2)
    memory.left = 2**20
    with pytest.raises(OutOfMemory) as caught:
        await engine.wake(frozenset({"weights"}))
    assert caught.value.needed == engine.footprint().to_wake - kv_chunk(engine)
    assert caught.value.available == 2**20
    await assert_wake_fails(engine, OutOfMemory)
    assert await collect(other, prompt(9), greedy(20)) == expected
    memory.left = None
    await engine.wake()
    assert await collect(engine, prompt(9), greedy(20)) == expected


def kv_chunk(engine: TorchEngine) -> int:
    return engine._model.kv.chunk_bytes  # type: ignore[union-attr]


async def test_no_memory_for_kv_is_an_error_of_the_request_and_passes(
    llama: Path, memory: ScarceMemory, awake: OpenEngine
) -> None:
    engine = await awake(llama)
    await engine.trim_kv()
    memory.left = 2**20
    with pytest.raises(OutOfMemory):
        await collect(engine, prompt(9), greedy(2))
    memory.left = None
    assert len((await collect(engine, prompt(9), greedy(2))).token_ids) == 2


async def test_memory_for_some_of_the_kv_serves_all_in_turn(
    tmp_path: Path, memory: ScarceMemory, awake: OpenEngine
) -> None:
    """Blocks of 160 KiB, and RAM for one chunk of them: whoever does not fit waits."""
    engine = await awake(make_checkpoint(tmp_path, head_dim=64, num_key_value_heads=6))
    prompts = [prompt(100, seed=seed) for seed in range(5)]
    expected = [await collect(engine, ids, greedy(8)) for ids in prompts]
    await engine.trim_kv()
    memory.left = 0

    def one_chunk() -> MemoryState:
        room = 2 * kv_chunk(engine) - engine._model.kv.committed  # type: ignore[union-attr]
        return MemoryState(total=2**40, available=room, shared_with_host=True)

    memory.state = one_chunk  # type: ignore[method-assign]
    async with asyncio.timeout(60):
        answers = await asyncio.gather(*(collect(engine, ids, greedy(8)) for ids in prompts))
    assert [a.token_ids for a in answers] == [a.token_ids for a in expected]


async def test_reload_adopts_files_of_the_same_shape(copy: Path, tmp_path: Path, awake: OpenEngine) -> None:
    other = make_checkpoint(tmp_path / "other", seed=7)
    expected = await collect(await awake(other), prompt(9), greedy(20))
    engine = await awake(copy)
    shutil.copy(other / FILE, copy / FILE)
    await engine.reload_weights()
    assert await collect(engine, prompt(9), greedy(20)) == expected
    for level in (1, 2):
        await engine.sleep(level)  # type: ignore[arg-type]
        await engine.wake()
        assert await collect(engine, prompt(9), greedy(20)) == expected


@pytest.mark.parametrize("damage", [touch, change_a_byte, replace])
async def test_reload_mends_a_wake_that_failed(
    copy: Path, awake: OpenEngine, damage: Callable[[Path], None]
) -> None:
    engine = await awake(copy)
    await engine.sleep(2)
    damage(copy / FILE)
    await assert_wake_fails(engine, CheckpointError)
    await engine.reload_weights()
    await engine.wake()
    assert len((await collect(engine, prompt(9), greedy(5))).token_ids) == 5


async def test_reload_of_another_shape_or_of_nothing_keeps_what_is_there(
    copy: Path, tmp_path: Path, awake: OpenEngine
) -> None:
    engine = await awake(copy)
    expected = await collect(engine, prompt(9), greedy(5))
    other = make_checkpoint(tmp_path / "other", intermediate_size=96)
    shutil.copy(other / FILE, copy / FILE)
    with pytest.raises(CheckpointError, match="shape"):
        await engine.reload_weights()
    half = make_checkpoint(tmp_path / "half", dtype=torch.bfloat16)
    shutil.copy(half / FILE, copy / FILE)
    with pytest.raises(CheckpointError, match="dtypes"):
        await engine.reload_weights()
    (copy / FILE).unlink()
    with pytest.raises(CheckpointError):
        await engine.reload_weights()
    assert await collect(engine, prompt(9), greedy(5)) == expected


async def test_reload_between_the_two_tags_of_a_wake_and_in_a_light_sleep(
    copy: Path, tmp_path: Path, awake: OpenEngine
) -> None:
    engine = await awake(copy)
    for seed, level in ((7, 2), (8, 1)):
        other = make_checkpoint(tmp_path / str(seed), seed=seed)
        expected = await collect(await awake(other), prompt(9), greedy(20))
        await engine.sleep(level)  # type: ignore[arg-type]
        await engine.wake(frozenset({"weights"}))
        shutil.copy(other / FILE, copy / FILE)
        await engine.reload_weights()
        assert engine.footprint().kv == 0
        await engine.wake(frozenset({"kv_cache"}))
        assert await collect(engine, prompt(9), greedy(20)) == expected


@pytest.mark.parametrize("asleep", [False, True])
async def test_reload_that_cannot_be_read_leaves_nothing_mixed(
    copy: Path, tmp_path: Path, awake: OpenEngine, monkeypatch: pytest.MonkeyPatch, asleep: bool
) -> None:
    engine = await awake(copy)
    await collect(engine, prompt(9), greedy(1))
    if asleep:
        await engine.sleep(1)
    other = make_checkpoint(tmp_path / "other", seed=7)
    shutil.copy(other / FILE, copy / FILE)
    with monkeypatch.context() as patch:
        fail_reads(patch, OSError(errno.EIO, "Input/output error"))
        with pytest.raises(CheckpointError):
            await engine.reload_weights()
    assert committed(engine) == 0, "as after a sleep at level 2"
    await assert_wake_fails(engine, CheckpointError)
    await engine.reload_weights()
    await engine.wake()
    expected = await collect(await awake(other), prompt(9), greedy(20))
    assert await collect(engine, prompt(9), greedy(20)) == expected


async def test_a_shard_of_several_may_be_the_one_that_changed(tmp_path: Path, awake: OpenEngine) -> None:
    directory = make_checkpoint(tmp_path, max_shard_size="60KB")
    engine = await awake(directory)
    for path in sorted(directory.glob("*.safetensors")):
        await engine.sleep(2)
        touch(path)
        error = await assert_wake_fails(engine, CheckpointError)
        assert path.name in str(error)
        await engine.reload_weights()
        await engine.wake()


async def test_load_fails_clearly_and_may_be_tried_again(copy: Path, awake: OpenEngine) -> None:
    index = copy / "config.json"
    saved = index.read_text()
    edit_json(index, lambda config: config.update(intermediate_size=81))
    with pytest.raises(CheckpointError, match="shape"):
        await awake(copy)
    index.write_text(saved)
    hidden = (copy / FILE).rename(copy / "elsewhere")
    with pytest.raises(CheckpointError, match="missing"):
        await awake(copy)
    hidden.rename(copy / FILE)
    engine = await awake(copy)
    request = GenerateRequest(prompt_ids=prompt(4), sampling=greedy(1))
    assert [delta async for delta in engine.generate(request)]
