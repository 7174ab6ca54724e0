"""Embedding by a whole engine: decoders, steps, leaving, failures that stay with their culprit, limits."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import normalize

import engine as engine_package
from engine.embedding import body
from engine.embedding.body import DecoderBody, EncoderBody
from engine.embedding.request import Input
from engine.engine import TorchEngine
from engine.kv_cache import KVCache
from engine.types import CheckpointError, EngineError, Level, OutOfMemory, RequestError
from tests.engine.checkpoints import make_checkpoint
from tests.engine.conftest import OpenEngine
from tests.engine.encoders import (
    STEPS,
    make_encoder,
    make_last_token_decoder,
    record_steps,
    reference_hidden,
    write_modules,
)
from tests.engine.harness import collect, edit_json, greedy, paused, prompt, until


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_last_token_decoder(tmp_path_factory.mktemp("qwen3"))


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> STEPS:
    return record_steps(monkeypatch)


def last_vectors(directory: Path, inputs: Sequence[Sequence[int]]) -> torch.Tensor:
    """The last token's hidden state of transformers, normalised."""
    return torch.stack([normalize(reference_hidden(directory, ids)[-1], dim=0) for ids in inputs])


async def embed(made: TorchEngine, inputs: Sequence[Sequence[int]], **options: Any) -> torch.Tensor:
    return torch.tensor([vector.tolist() for vector in await made.embed(inputs, **options)])


def kv(made: TorchEngine) -> KVCache:
    assert made._model is not None and isinstance(made._model.kv, KVCache)
    return made._model.kv


# Decoders


@pytest.mark.parametrize("level", [None, 1, 2])
async def test_a_decoder_gives_its_last_tokens_state(
    decoder: Path, awake: OpenEngine, level: Level | None
) -> None:
    made = await awake(decoder)
    inputs = [prompt(length, seed=length) for length in (1, 16, 511, 512, 513, 1300, 40)]
    expected = last_vectors(decoder, inputs)
    if level:
        before = await made.embed(inputs)
        await made.sleep(level)
        assert made.footprint().kv == 0
        await made.wake()
        assert await made.embed(inputs) == before, "not the same bits after a sleep"
    assert (await embed(made, inputs) - expected).abs().max() < 1e-4
    for ids, row in zip(inputs, expected, strict=True):
        assert ((await embed(made, [ids]))[0] - row).abs().max() < 1e-4
    await until(lambda: kv(made).used_blocks == 0)


async def test_a_decoder_says_what_it_is(decoder: Path, awake: OpenEngine) -> None:
    made = await awake(decoder)
    info = made.info
    assert (info.kind, info.architecture) == ("embed", "Qwen3ForCausalLM")
    assert (info.embedding_size, info.matryoshka, info.max_model_len) == (48, True, 2048)
    assert made.encode("tea")[-1] == 0, "the tokenizer ends a text by itself"
    estimate = engine_package.estimate(str(decoder))
    assert estimate is not None and estimate.kv_bytes_per_token > 0


async def test_a_headless_decoder_without_files_of_its_own(tmp_path: Path, awake: OpenEngine) -> None:
    """Tensors without the prefix, no head: last token, normalised."""
    directory = make_checkpoint(tmp_path, "qwen3", tie_word_embeddings=True)
    edit_json(directory / "config.json", lambda config: config.update(architectures=["Qwen3Model"]))
    file = directory / "model.safetensors"
    tensors = {name.removeprefix("model."): t for name, t in load_file(file).items() if "lm_head" not in name}
    save_file(tensors, file, metadata={"format": "pt"})
    made = await awake(directory)
    assert (made.info.kind, made.info.architecture) == ("embed", "Qwen3Model")
    ids = prompt(70)
    assert (await embed(made, [ids]) - last_vectors(directory, [ids])).abs().max() < 1e-4


async def test_any_pooling_over_a_decoder(decoder: Path, tmp_path: Path, awake: OpenEngine) -> None:
    directory = make_checkpoint(tmp_path, "llama", max_position_embeddings=2048)
    write_modules(directory, ("Pooling", {"pooling_mode": "weightedmean"}), max_seq_length=1500)
    made = await awake(directory)
    assert made.info.max_model_len == 1500
    ids = prompt(1100)
    hidden, weights = reference_hidden(directory, ids), torch.arange(1.0, 1101.0)[:, None]
    expected = (hidden * weights).sum(0) / weights.sum()
    assert ((await embed(made, [ids]))[0] - expected).abs().max() < 1e-4


@pytest.mark.parametrize("key", [{"is_causal": False}, {"use_bidirectional_attention": True}])
def test_a_decoder_that_looks_ahead_is_refused(tmp_path: Path, key: dict[str, bool]) -> None:
    directory = make_checkpoint(tmp_path, "llama")
    write_modules(directory, ("Pooling", {"pooling_mode": "mean"}))
    edit_json(directory / "config.json", lambda config: config.update(key))
    with pytest.raises(CheckpointError, match=next(iter(key))):
        engine_package.open(str(directory))


async def test_one_input_that_can_never_fit_is_out_of_memory(decoder: Path, awake: OpenEngine) -> None:
    made = await awake(decoder, kv_limit=2**20)
    expected = await made.embed([prompt(9)])
    async with asyncio.timeout(30):
        results = await asyncio.gather(
            made.embed([prompt(9)]),
            made.embed([prompt(9), prompt(2000)]),
            made.embed([prompt(9)]),
            return_exceptions=True,
        )
    assert isinstance(results[1], OutOfMemory)
    assert results[0] == results[2] == expected
    await until(lambda: kv(made).used_blocks == 0)


# Steps


async def test_a_step_is_bounded_and_shared(encoder: Path, awake: OpenEngine, steps: STEPS) -> None:
    made = await awake(encoder)
    lengths = [[100, 150, 200, 100], [50], [3, 200]]
    async with paused(made._device):
        tasks = [asyncio.create_task(made.embed([prompt(n) for n in several])) for several in lengths]
        await until(lambda: len(made._stepper.inbox) == 3)  # type: ignore[union-attr]
    for task, several in zip(tasks, lengths, strict=True):
        assert await task == await made.embed([prompt(n) for n in several]) or len(several) > 0
    assert steps[:2] == [[(100, 100), (150, 150), (200, 200)], [(100, 100), (50, 50), (3, 3), (200, 200)]]
    assert all(sum(count for _, count in step) <= body.STEP_TOKENS for step in steps)


async def test_a_decoders_long_input_takes_several_steps(
    decoder: Path, awake: OpenEngine, steps: STEPS
) -> None:
    made = await awake(decoder)
    await made.embed([prompt(1200), prompt(20)])
    assert steps == [[(1200, 512)], [(1200, 512)], [(1200, 176), (20, 20)]]


async def test_a_stream_goes_on_beside_a_large_batch(
    encoder: Path, llama: Path, awake: OpenEngine, steps: STEPS
) -> None:
    made, talker = await awake(encoder), await awake(llama)
    batch = asyncio.create_task(made.embed([prompt(190, seed=seed) for seed in range(40)]))
    await until(lambda: bool(steps))
    before = len(steps)
    await collect(talker, prompt(4), greedy(5))
    assert len(steps) - before <= 8, "a step of one, then a step of the other"
    assert not batch.done()
    assert len(await batch) == 40


# Leaving and failing


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
async def test_leaving_ends_the_work_within_a_step(
    request: pytest.FixtureRequest, awake: OpenEngine, steps: STEPS, kind: str
) -> None:
    made = await awake(request.getfixturevalue(kind))
    task = asyncio.create_task(made.embed([prompt(190, seed=seed) for seed in range(200)]))
    await until(lambda: bool(steps))
    async with paused(made._device):
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        done = len(steps)
    await until(lambda: not made._stepper.has_work)  # type: ignore[union-attr]
    assert len(steps) == done
    await until(lambda: kind == "encoder" or kv(made).used_blocks == 0)


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
async def test_a_failing_input_ends_only_its_own_request(
    request: pytest.FixtureRequest, awake: OpenEngine, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    made = await awake(request.getfixturevalue(kind))
    expected = await made.embed([prompt(9)])
    owner = EncoderBody if kind == "encoder" else DecoderBody
    real = owner.hidden

    def hidden(self: Any, works: Sequence[tuple[Input, int]]) -> list[torch.Tensor]:
        if any(len(work.ids) == 7 for work, _ in works):
            raise RuntimeError("a fault of this test")
        return real(self, works)

    monkeypatch.setattr(owner, "hidden", hidden)
    async with paused(made._device):
        inputs = [[prompt(9)], [prompt(9), prompt(7), prompt(9)], [prompt(9)]]
        tasks = [asyncio.create_task(made.embed(several)) for several in inputs]
        await until(lambda: len(made._stepper.inbox) == 3)  # type: ignore[union-attr]
    first, failed, last = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(failed, EngineError)
    for answer in (first, last):
        assert not isinstance(answer, BaseException)
        assert torch.allclose(torch.tensor(answer), torch.tensor(expected), atol=1e-6)
    await until(lambda: kind == "encoder" or kv(made).used_blocks == 0)


async def test_what_still_runs_at_a_sleep_ends_with_an_error(encoder: Path, awake: OpenEngine) -> None:
    made = await awake(encoder)
    task = asyncio.create_task(made.embed([prompt(190, seed=seed) for seed in range(200)]))
    await until(lambda: made._stepper.has_work)  # type: ignore[union-attr]
    await made.sleep(1)
    with pytest.raises(EngineError, match=r"^the model was put to sleep$"):
        await task
    with pytest.raises(EngineError, match="not awake"):
        await made.embed([prompt(3)])


# Requests


@pytest.mark.parametrize(
    ("inputs", "options", "param"),
    [
        ([[]], {}, "input"),
        ([[4], [5, -1]], {}, "input"),
        ([[10**6]], {}, "input"),
        ([[4] * 201], {}, "input"),
        ([[4]], {"dimensions": 8}, "dimensions"),
        ([[4]], {"dimensions": 0}, "dimensions"),
    ],
)
async def test_an_impossible_request_is_refused(
    encoder: Path, awake: OpenEngine, inputs: list[list[int]], options: dict[str, int], param: str
) -> None:
    made = await awake(encoder)
    with pytest.raises(RequestError) as caught:
        await made.embed(inputs, **options)
    assert caught.value.param == param


async def test_a_model_does_only_what_it_is_for(encoder: Path, llama: Path, awake: OpenEngine) -> None:
    with pytest.raises(RequestError) as caught:
        await (await awake(llama)).embed([prompt(3)])
    assert caught.value.param == "model"
    with pytest.raises(RequestError) as caught:
        await collect(await awake(encoder), prompt(3), greedy(1))
    assert caught.value.param == "model"


@pytest.mark.parametrize("key", [{"is_matryoshka": True}, {"matryoshka_dimensions": [16, 48]}])
async def test_vectors_are_cut_where_the_model_allows_it(
    tmp_path: Path, awake: OpenEngine, key: dict[str, Any]
) -> None:
    directory = make_encoder(tmp_path)
    edit_json(directory / "config.json", lambda config: config.update(key))
    made = await awake(directory)
    assert made.info.matryoshka
    whole = await embed(made, [prompt(30)])
    for dimensions in (1, 16, 48):
        cut = await embed(made, [prompt(30)], dimensions=dimensions)
        assert torch.allclose(cut, normalize(whole[:, :dimensions], dim=1), atol=1e-6)
    with pytest.raises(RequestError):
        await made.embed([prompt(30)], 49)


async def test_no_inputs_no_vectors(encoder: Path, awake: OpenEngine) -> None:
    assert await (await awake(encoder)).embed([]) == []
