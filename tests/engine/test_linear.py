"""Packed weights: the same numbers to the bit, in the same bytes, plain again after a sleep."""

from __future__ import annotations

import ctypes
import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.checkpoint import Checkpoint
from engine.device import Device
from engine.info import read_config
from engine.linear import Linear
from engine.memory.cpu import CpuArena
from engine.model import Model, build_model
from engine.reader import Reader
from engine.types import EngineOptions, OutOfMemory
from engine.widening import widening_pays
from tests.bench.random_checkpoint import SHAPES, write_checkpoint
from tests.engine.conftest import OpenEngine
from tests.engine.harness import collect, greedy, prompt, until

SIZES = [(64, 32), (192, 96), (4096, 1024), (1024, 2048), (6144, 1024), (1024, 3072), (512, 8192)]
ROWS = (1, 2, 3, 4, 7, 8, 16, 17, 32, 33, 64, 128)

pytestmark = pytest.mark.skipif(
    not Linear(torch.zeros(64, 32, dtype=torch.bfloat16)).packable, reason="this CPU has nothing to pack for"
)


def random_linear(rows: int, columns: int, *, bias: bool = False) -> Linear:
    generator = torch.Generator().manual_seed(rows + columns)
    weight = torch.randn(rows, columns, generator=generator).mul_(0.05).bfloat16()
    return Linear(weight, torch.randn(rows, generator=generator).bfloat16() if bias else None)


def answer(layer: Linear, x: torch.Tensor) -> torch.Tensor:
    """As rows of a prompt, then as generated ones."""
    return torch.cat((layer(x), layer(x, generated=True)))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_packed_is_plain_to_the_bit(size: tuple[int, int]) -> None:
    layer = random_linear(*size, bias=size[0] == 192)
    inputs = [torch.randn(rows, size[1]).bfloat16() for rows in ROWS]
    ids = torch.randint(0, size[0], (50,))
    plain, rows = [answer(layer, x) for x in inputs], layer.rows(ids)
    address = layer.weight.data_ptr()
    layer.pack()
    assert layer.packed
    assert layer.weight.data_ptr() == address
    assert all(torch.equal(answer(layer, x), y) for x, y in zip(inputs, plain, strict=True))
    assert torch.equal(layer.rows(ids), rows)


@pytest.mark.skipif(not widening_pays(), reason="this CPU multiplies rows of prompts as oneDNN does")
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("size", [*SIZES, (14336, 64)], ids=str)
def test_rows_of_prompts_are_the_products_rounded_once(size: tuple[int, int], packed: bool) -> None:
    """At any number of rows and of panels, with and without a bias."""
    layer = random_linear(*size, bias=size[1] <= 96)
    exact = layer.weight.double()
    x = torch.randn(200, size[1], generator=torch.Generator().manual_seed(3)).bfloat16()
    wanted = x.double() @ exact.T + (0 if layer.bias is None else layer.bias.double())
    if packed:
        layer.pack()
    whole = layer(x)
    assert ((whole.double() - wanted).abs() <= wanted.abs() * 2**-8 + 1e-5).all()
    for rows in (1, 5, 15, 16, 17, 40, 128, 199):
        assert torch.equal(layer(x[:rows]), whole[:rows]), rows


def test_packing_again_makes_no_other_tensors() -> None:
    """torch keeps each one over given memory for ever."""

    def tensors() -> int:
        gc.collect()
        return sum(type(one) is torch.Tensor for one in gc.get_objects())

    layer = random_linear(192, 96)
    layer.pack()
    before = tensors()
    for _ in range(5):
        layer.emptied()
        layer.weight.copy_(random_linear(192, 96).weight)
        layer.pack()
        assert layer.packed
    assert tensors() == before


@pytest.mark.parametrize("size", [(63, 32), (64, 33), (65, 64)], ids=str)
def test_what_would_need_other_bytes_stays_plain(size: tuple[int, int]) -> None:
    assert not random_linear(*size).packable


def test_other_dtypes_stay_plain() -> None:
    assert not Linear(torch.zeros(64, 64)).packable


def test_blocks_that_lie_otherwise_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A format of another CPU would make the rows of a tied embedding unreadable."""
    layer = random_linear(192, 96)
    before = layer.weight.clone()
    monkeypatch.setattr("engine.packing._rows_of_blocks", lambda packed, ids, rows: packed[ids])
    layer.pack()
    assert not layer.packed
    assert not layer.packable
    assert torch.equal(layer.weight, before)


def test_without_memory_for_it_packing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(size: int) -> None:
        raise OutOfMemory(size, 0)

    layer = random_linear(192, 96)
    with monkeypatch.context() as scarce:
        scarce.setattr("engine.linear.system.claim", short)
        layer.pack()
        assert not layer.packed
    assert layer.packable
    layer.pack()
    assert layer.packed


def test_a_packed_weight_lives_in_its_arena_through_a_release() -> None:
    arena = CpuArena(2**21)
    plain = random_linear(192, 96)
    x = torch.randn(5, 96).bfloat16()
    view = arena.tensor[: plain.weight.nbytes].view(torch.bfloat16).view(192, 96)
    layer = Linear(view)
    for _ in range(3):
        with arena.commit(0, arena.size):
            ctypes.memmove(view.data_ptr(), plain.weight.data_ptr(), plain.weight.nbytes)
        assert torch.equal(layer(x), plain(x))
        layer.pack()
        assert layer.packed
        assert torch.equal(layer(x), plain(x))
        layer.emptied()
        arena.release(0, arena.size)
        assert not view.any()
    arena.close()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of shapes that can be packed, embedding and head tied."""
    shape = {**SHAPES["60m"], "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3}
    SHAPES["tiny"] = {**shape, "vocab_size": 1024}
    return write_checkpoint(tmp_path_factory.mktemp("packable"), "tiny")


async def test_a_quiet_model_gets_packed_and_says_the_same(
    checkpoint: Path, awake: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, answers = prompt(40, vocabulary=1000), []

    async def answer() -> None:
        answers.append((await collect(engine, ids, greedy(20))).token_ids)

    with monkeypatch.context() as never:
        never.setattr(Linear, "packable", False)
        engine = await awake(checkpoint)
        await answer()
        assert engine.footprint().packed == 0
        await engine.sleep(2)
    await engine.wake()
    await answer()
    model = engine._model
    assert isinstance(model, Model)
    whole = sum(layer.weight.nbytes for layer in model.runner.decoder.linears)
    await until(lambda: engine.footprint().packed == whole)
    held = engine.footprint()
    assert held.device == held.weights + held.kv + held.residue
    await answer()
    await engine.sleep(1)
    assert engine.footprint().packed == whole
    await engine.wake()
    await answer()
    await engine.sleep(2)
    assert engine.footprint().packed == 0
    await engine.wake()
    await answer()
    await until(lambda: engine.footprint().packed == whole)
    await answer()
    assert all(tokens == answers[0] for tokens in answers)


async def test_packing_never_runs_while_the_weights_are_being_read(
    checkpoint: Path, awake: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await awake(checkpoint)
    ids = prompt(40, vocabulary=1000)
    first = (await collect(engine, ids, greedy(20))).token_ids
    model = engine._model
    assert isinstance(model, Model)
    weights, read, tried = model.weights, Reader.read, []

    def read_and_look(self: Reader, *args: Any) -> None:
        read(self, *args)
        tried.append(weights.pack_next())

    monkeypatch.setattr(Reader, "read", read_and_look)
    for _ in range(10):
        await engine.reload_weights()
        assert (await collect(engine, ids, greedy(20))).token_ids == first
    assert tried == [False] * 10


def test_a_release_waits_for_the_matrix_that_is_being_packed(tmp_path: Path) -> None:
    """Another thread may take the memory: what is packed then would be lost, and pass for packed."""
    checkpoint = write_checkpoint(tmp_path, "tiny")
    model = build_model(
        Checkpoint(checkpoint), read_config(Checkpoint(checkpoint)), EngineOptions(), Device("cpu", CpuArena)
    )
    packing, go_on = threading.Event(), threading.Event()
    real = Linear.pack

    def slow(self: Linear) -> bool:
        packing.set()
        go_on.wait(5)
        return real(self)

    model.weights.fill()
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setattr(Linear, "pack", slow)
        packing_one = pool.submit(model.weights.pack_next)
        packing.wait(5)
        releasing = pool.submit(model.weights.release)
        try:
            with pytest.raises(TimeoutError):
                releasing.result(0.05)
        finally:
            go_on.set()
        assert packing_one.result()
        releasing.result()
    assert model.weights.packed == 0
    for arena in model.arenas:
        arena.close()


@pytest.mark.parametrize("generated", [False, True])
def test_on_another_device_it_is_torchs(generated: bool) -> None:
    layer = Linear(torch.empty(64, 64, dtype=torch.bfloat16, device="meta"))
    assert not layer.packable
    x = torch.empty(3, 64, dtype=torch.bfloat16, device="meta")
    assert layer(x, generated=generated).shape == (3, 64)
