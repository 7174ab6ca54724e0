"""The parts of `make gpu` as far as they run without one: on the fake driver, with tiny models, and numbers
of which only the names are worth anything."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from engine.devices import cuda_device
from engine.memory.ring import Ring
from tests.bench.gpu import beside, card, copies, decoding, large, peer, waking
from tests.bench.gpu.checkpoints import checkpoint
from tests.bench.gpu.result import Result
from tests.bench.gpu.streams import attempt
from tests.bench.random_checkpoint import SHAPES
from tests.engine.memory.fake_driver import GRANULARITY, FakeDriver
from tests.gpu import test_models as models_checks
from tests.gpu.checks import run_checks
from tests.gpu.replayed import Replayed, take_turns

CPU = torch.device("cpu")
TINY: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "vocab_size": 30_001,
    "tie_word_embeddings": False,
}


class Recorder:
    """See ``engine.graphs.GraphRecorder``: what is recorded runs again, on the same memory."""

    def record(self, run: Callable[[], object]) -> Any:
        return type("Graph", (), {"replay": staticmethod(run)})()

    def floats(self, count: int) -> torch.Tensor:
        return torch.empty(count)

    def held(self) -> int:
        return 0


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    """Stands in for the card, whose sizes and rates it has not got."""
    driver = FakeDriver(memory=2**30)
    monkeypatch.setattr("engine.devices._RING_BUFFER", 64 * 1024)
    monkeypatch.setattr("engine.packing.can_pack", lambda: False)  # as on a device that is no CPU
    device = cuda_device(driver, "cpu", driver.tensor)
    monkeypatch.setattr("engine.engine.get_device", lambda name: device)
    for name in ("link_rate", "memory_copy_rate", "read_rate", "product_rate"):
        monkeypatch.setattr(card, name, lambda *_: 1e9)
    monkeypatch.setattr(card, "DEVICE", CPU)
    monkeypatch.setattr(card, "finish", lambda: None)
    monkeypatch.setattr(card, "trim", gc.collect)
    monkeypatch.setattr(card, "others", lambda: None)
    monkeypatch.setattr(card, "free", lambda: driver.memory - driver.used)
    for shape in ("60m", "0.6b", "8b", "14b"):
        monkeypatch.setitem(SHAPES, shape, TINY)
    monkeypatch.setattr("tests.bench.gpu.checkpoints.SHARED", Path("/nowhere"))
    return driver


@pytest.fixture
def result(tmp_path: Path) -> Iterator[Result]:
    made = Result(tmp_path / "part.json", "part", {}, 60)
    yield made
    assert all(found["value"] >= 0 for found in made.numbers.values())


def test_weights_are_written_as_the_reader_wants_them(tmp_path: Path, driver: FakeDriver) -> None:
    path = checkpoint(tmp_path, "8b", CPU)
    assert checkpoint(tmp_path, "8b", CPU) == path
    assert checkpoint(tmp_path, "8b", CPU, seed=1) != path
    weights = {name: t for file in path.glob("*.safetensors") for name, t in load_file(file).items()}
    index = json.loads((path / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == weights.keys()
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in weights.values())
    assert weights["model.embed_tokens.weight"].shape == (30_001, 32)
    assert weights["model.layers.1.mlp.down_proj.weight"].float().std().item() == pytest.approx(0.03, rel=0.1)
    assert weights["model.norm.weight"].float().mean().item() == pytest.approx(1, rel=0.1)


def test_waking(driver: FakeDriver, result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waking, "REQUESTS", 2)
    monkeypatch.setattr(waking, "ROWS", 3)
    waking.measure(result, tmp_path)
    assert not result.failures
    names = set(result.numbers)
    assert {"light_wake_over_link", "cached_wake_over_slower", "sleeper_keeps_mib"} <= names
    assert {"first_token_woken_over_awake_1", "first_token_woken_over_awake_2"} <= names
    assert {"light_sleep_worst_over_allowed", "deep_sleep_worst_over_allowed"} <= names
    assert "disk_wake_over_direct_reads" in names or "no direct reads" in result.notes[-1]
    assert result.numbers["sleeper_keeps_mib"]["value"] == 0
    driver.assert_idle()


def test_decoding(
    driver: FakeDriver, result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"MANY": 3, "CONTEXT": 40, "TOKENS": 6, "PROMPTS": 2, "PROMPT": 40}.items():
        monkeypatch.setattr(decoding, name, value)
    decoding.measure(result, tmp_path)
    assert not result.failures
    wanted = {name for name, found in result.numbers.items() if "least" in found}
    assert wanted == {"one_answer_over_bandwidth", "prompts_over_products"}
    assert result.numbers["64_answers_tokens_s"]["value"] > 0


def test_beside(driver: FakeDriver, result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "ROUNDS", 2)
    monkeypatch.setattr(beside, "STREAMS", 2)
    beside.measure(result, tmp_path)
    assert not result.notes
    assert {"kept_beside_wakes_1", "kept_beside_wakes_2"} <= set(result.numbers)


def test_large(driver: FakeDriver, result: Result, tmp_path: Path) -> None:
    large.measure(result, tmp_path)
    assert "light_wake_over_link" in result.numbers


def test_what_is_not_installed_is_left_out(
    driver: FakeDriver, result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.bench.gpu.peer.find_spec", lambda name: None)
    peer.measure(result, tmp_path)
    assert [note.partition(":")[0] for note in result.notes] == [
        "there is no transformers here",
        "there is no torch_memory_saver here",
    ]


def test_beside_transformers(
    driver: FakeDriver, result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its continuous batching wants a GPU."""
    for name, value in {"MANY": 2, "CONTEXT": 8, "FEW": 1, "TOKENS": 4}.items():
        monkeypatch.setattr(peer, name, value)
    monkeypatch.setattr("tests.bench.gpu.peer.find_spec", lambda name: name == "transformers" or None)
    monkeypatch.setattr(peer, "continuous", None)
    decoded = Result(tmp_path / "gpu-decode.json", "decode", {}, 1)
    decoded.number("64_answers_tokens_s", 1e9)
    peer.measure(result, tmp_path)
    assert result.numbers["transformers_batch_tokens_s"]["value"] > 0
    assert result.numbers["64_answers_over_transformers_batch"]["value"] > 1
    assert list(result.failures) == ["transformers_continuous"]


def test_copies(driver: FakeDriver, result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANGE", "COPIED", "LOCKED"):
        monkeypatch.setattr(copies, name, 4 * 2**20)
    monkeypatch.setattr(copies, "MIB", GRANULARITY)
    monkeypatch.setattr(copies, "tensor_factory", lambda device: driver.tensor)
    driver.make_current()
    copies.chunks(result, driver)  # type: ignore[arg-type]
    copies.rings(result, driver, checkpoint(tmp_path, "0.6b", CPU))  # type: ignore[arg-type]
    driver.assert_idle()
    assert not driver.reserved
    assert len(result.numbers) == 3 * len(copies.CHUNKS) + len(copies.RINGS)


def test_graphs_over_arenas_take_turns(driver: FakeDriver) -> None:
    driver.make_current()
    ring = Ring(driver, 2, 64 * 1024)
    models = [
        Replayed(
            driver, driver.tensor, Recorder(), layers=3, width=width, chunk=chunk * GRANULARITY, seed=chunk
        )
        for width, chunk in ((64, 1), (256, 4))
    ]
    assert not torch.equal(models[0].expected[:, :64], models[1].expected[:, :64])
    free = take_turns(models, ring, 8)
    assert len(set(free)) == 1
    models[0].sleep()
    models[0].arena.tensor[:1].fill_(0)  # what a graph would read is gone: the fake has other memory there
    for model in models:
        model.close()
    ring.close()
    driver.assert_idle()
    assert not driver.reserved
    assert not driver.registered


def test_the_checks_of_models(driver: FakeDriver, result: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models_checks, "ROUNDS", 7)
    run_checks(models_checks, result)
    assert [found["value"] for found in result.numbers.values()] == [1.0, 1.0]


def test_a_check_that_fails_is_told_of(result: Result) -> None:
    def test_wrong() -> None:
        raise AssertionError

    async def test_right(tmp_path: Path) -> None:
        assert tmp_path.name

    module = type(sys)("checks")
    module.__dict__.update(test_wrong=test_wrong, test_right=test_right, helper=test_wrong)
    run_checks(module, result)
    assert {name: found["ok"] for name, found in result.numbers.items()} == {"wrong": False, "right": True}
    assert "raise AssertionError" in result.failures["test_wrong"]


async def test_what_fails_is_told_of_and_does_not_end_a_part(result: Result) -> None:
    async def failing() -> None:
        raise ValueError("no")

    await attempt(result, "one", failing())
    assert result.notes == ["one: ValueError: no"]
