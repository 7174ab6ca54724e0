"""Requests for embeddings that are suspended keep what they have, and go on with the rest later."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engine.device import Device
from engine.embedding.stepper import EmbeddingStepper
from engine.engine import TorchEngine
from engine.types import EngineError, Level
from tests.engine.conftest import OpenEngine
from tests.engine.encoders import STEPS, make_encoder, make_last_token_decoder, record_steps
from tests.engine.harness import collect, greedy, paused, prompt, until

Vectors = list["array[float]"]
ENCODED = [[190, 190, 190, 190, 190], [60, 190, 3]]
"""Lengths of the inputs of two requests for the encoder: four steps."""
DECODED = [[1200, 20], [30, 700]]
"""And for the decoder: five, the third of which ends three inputs."""

both_levels = pytest.mark.parametrize("level", [1, 2])
both_forms = pytest.mark.parametrize("keep_kv", [True, False])


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_last_token_decoder(tmp_path_factory.mktemp("qwen3"))


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> STEPS:
    return record_steps(monkeypatch)


def stepper_of(engine: TorchEngine) -> EmbeddingStepper:
    assert isinstance(engine._stepper, EmbeddingStepper)
    return engine._stepper


@asynccontextmanager
async def suspended(
    engine: TorchEngine, asked: Sequence[Sequence[int]], *, after: int, keep_kv: bool = True
) -> AsyncIterator[list[asyncio.Task[Vectors]]]:
    """Requests for inputs of these lengths, in this order, suspended together after so many steps; the body
    is to resume them."""
    stepper = stepper_of(engine)

    def step() -> None:
        for _ in range(after):
            stepper.step()

    async with paused(engine._device):
        tasks = []
        for lengths in asked:
            inputs = [prompt(length, seed=seed) for seed, length in enumerate(lengths)]
            tasks.append(asyncio.create_task(engine.embed(inputs)))
        await until(lambda: len(stepper.inbox) == len(asked))
        stepping = asyncio.create_task(engine._device.between_steps(step))
        suspending = asyncio.create_task(engine.suspend(keep_kv=keep_kv))
        await asyncio.sleep(0)
    await asyncio.gather(stepping, suspending)
    assert not stepper.has_work
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def undisturbed(engine: TorchEngine, asked: Sequence[Sequence[int]]) -> list[Vectors]:
    """The same requests in the same steps."""
    async with suspended(engine, asked, after=0) as tasks:
        await engine.resume()
        return await asyncio.gather(*tasks)


async def sleep_and_wake(engine: TorchEngine, level: Level) -> None:
    await engine.sleep(level)
    await engine.trim_kv()
    await engine.wake()


# The same vectors


@pytest.mark.parametrize(
    ("kind", "after", "again"),
    [
        pytest.param("encoder", 0, 0, id="encoder_before_all"),
        pytest.param("encoder", 1, 1, id="encoder_in_a_request"),
        pytest.param("encoder", 3, 3, id="encoder_in_the_other"),
        pytest.param("decoder", 2, 0, id="decoder_in_an_input"),
        pytest.param("decoder", 3, 3, id="decoder_between_inputs"),
        pytest.param("decoder", 4, 3, id="decoder_in_the_last"),
    ],
)
@both_levels
@both_forms
async def test_the_rest_is_computed_later(
    request: pytest.FixtureRequest,
    awake: OpenEngine,
    steps: STEPS,
    kind: str,
    after: int,
    again: int,
    level: Level,
    keep_kv: bool,
) -> None:
    """Bit by bit, in the same steps. ``again``: the step where an input begins whose KV was given up."""
    engine = await awake(request.getfixturevalue(kind))
    asked = ENCODED if kind == "encoder" else DECODED
    expected = await undisturbed(engine, asked)
    cut = list(steps)
    steps.clear()
    async with suspended(engine, asked, after=after, keep_kv=keep_kv) as tasks:
        await sleep_and_wake(engine, level)
        assert steps == cut[:after]
        await engine.resume()
        assert await asyncio.gather(*tasks) == expected
    assert steps == cut[:after] + cut[after if keep_kv else again :]


async def test_a_large_batch_is_cut_at_a_steps_end(encoder: Path, awake: OpenEngine, steps: STEPS) -> None:
    engine = await awake(encoder)
    inputs = [prompt(190, seed=seed) for seed in range(300)]
    expected = await engine.embed(inputs)
    embedding = asyncio.create_task(engine.embed(inputs))
    for _ in range(3):
        before = len(steps)
        await until(lambda: len(steps) > before)  # noqa: B023
        await engine.suspend(keep_kv=True)
        done = len(steps)
        await sleep_and_wake(engine, 2)
        assert len(steps) == done and not embedding.done()
        await engine.resume()
    assert await embedding == expected
    assert len(steps) == 2 * 150, "no step was made twice"


async def test_suspended_again_before_it_is_where_it_was(decoder: Path, awake: OpenEngine) -> None:
    engine = await awake(decoder)
    expected = await undisturbed(engine, DECODED)
    async with suspended(engine, DECODED, after=2, keep_kv=True) as tasks:
        for keep_kv in (False, False, True):
            await sleep_and_wake(engine, 1)
            await engine.resume()
            await engine.suspend(keep_kv=keep_kv)
        await engine.suspend(keep_kv=False)
        await sleep_and_wake(engine, 2)
        await engine.resume()
        assert await asyncio.gather(*tasks) == expected


@pytest.mark.parametrize(("keep_kv", "step"), [(True, 3), (False, 5)])
async def test_it_is_told_when_more_is_computed_than_before(
    decoder: Path, awake: OpenEngine, steps: STEPS, keep_kv: bool, step: int
) -> None:
    engine = await awake(decoder)
    told: list[int] = []
    async with suspended(engine, DECODED, after=2, keep_kv=keep_kv) as tasks:
        stepper = stepper_of(engine)
        await engine._device.between_steps(lambda: stepper.resume(lambda: told.append(len(steps))))
        await asyncio.gather(*tasks)
    assert told == [step]


# Memory


@both_levels
async def test_kept_memory_is_counted(decoder: Path, awake: OpenEngine, level: Level) -> None:
    engine = await awake(decoder)
    async with suspended(engine, DECODED, after=1, keep_kv=True) as tasks:
        kept = engine.footprint().kept
        assert kept > 0
        await engine.sleep(level)
        assert (engine.footprint().kv, engine.footprint().kept) == (kept, kept)
        await engine.suspend(keep_kv=False)
        assert (engine.footprint().kv, engine.footprint().kept) == (0, 0)
        await engine.wake()
        assert engine.footprint().kv == kept, "room for the input that was in the making"
        await engine.resume()
        await asyncio.gather(*tasks)
    assert engine.footprint().kept == 0


@both_levels
async def test_what_is_not_kept_is_given_back(decoder: Path, awake: OpenEngine, level: Level) -> None:
    engine = await awake(decoder)
    async with suspended(engine, DECODED, after=1, keep_kv=False):
        assert engine.footprint().kept == 0
        await engine.sleep(level)
        assert engine.footprint().kv == 0


async def test_between_inputs_there_is_nothing_to_keep(decoder: Path, awake: OpenEngine) -> None:
    engine = await awake(decoder)
    async with suspended(engine, DECODED, after=3, keep_kv=True):
        assert engine.footprint().kept == 0
        await engine.sleep(1)
        assert engine.footprint().kv == 0


async def test_kept_memory_gives_way_to_another_engine_that_runs(
    decoder: Path, own_device: Device, awake: OpenEngine
) -> None:
    other, engine = await awake(decoder), await awake(decoder)
    expected = await undisturbed(engine, DECODED)
    async with suspended(engine, DECODED, after=2, keep_kv=True) as tasks:
        await engine.sleep(1)
        assert engine.footprint().kept > 0
        own_device.budget.limit = own_device.budget.used
        assert await undisturbed(other, DECODED) == expected
        assert (engine.footprint().kv, engine.footprint().kept) == (0, 0)
        await other.sleep(1)
        await engine.wake()
        await engine.resume()
        assert await asyncio.gather(*tasks) == expected


# Those who leave, and those who come


async def test_who_leaves_gives_memory_back_without_a_wake(
    decoder: Path, awake: OpenEngine, steps: STEPS
) -> None:
    engine = await awake(decoder)
    expected = await undisturbed(engine, DECODED[1:])
    async with suspended(engine, DECODED, after=2, keep_kv=True) as tasks:
        await engine.sleep(2)
        assert engine.footprint().kept > 0
        tasks[0].cancel()
        await until(lambda: engine.footprint().kv == 0)
        assert engine.footprint().kept == 0
        assert not stepper_of(engine).has_work
        await engine.wake()
        steps.clear()
        await engine.resume()
        assert await tasks[1:][0] == expected[0]
    assert steps == [[(30, 30)], [(700, 512)], [(700, 188)]]


@both_forms
@pytest.mark.parametrize("kind", ["encoder", "decoder"])
async def test_all_may_leave(
    request: pytest.FixtureRequest, awake: OpenEngine, kind: str, keep_kv: bool
) -> None:
    engine = await awake(request.getfixturevalue(kind))
    async with suspended(engine, ENCODED, after=1, keep_kv=keep_kv):
        await engine.sleep(2)
    await until(lambda: not stepper_of(engine)._queue)
    assert (await engine._device.between_steps(engine.footprint)).kv == 0
    await engine.wake()
    await engine.resume()
    assert len(await engine.embed([prompt(3)])) == 1


@both_forms
@pytest.mark.parametrize("asleep", [True, False])
@pytest.mark.parametrize("kind", ["encoder", "decoder"])
async def test_closing_ends_the_suspended(
    request: pytest.FixtureRequest, awake: OpenEngine, kind: str, asleep: bool, keep_kv: bool
) -> None:
    engine = await awake(request.getfixturevalue(kind))
    async with suspended(engine, ENCODED, after=1, keep_kv=keep_kv) as tasks:
        if asleep:
            await engine.sleep(1)
        await engine.close()
        for task in tasks:
            with pytest.raises(EngineError, match=r"^the model was closed$"):
                await task
        assert engine.footprint().device == 0


async def test_new_weights_end_the_suspended(decoder: Path, awake: OpenEngine) -> None:
    engine = await awake(decoder)
    async with suspended(engine, DECODED, after=1, keep_kv=True) as tasks:
        await engine.sleep(2)
        await engine.reload_weights()
        for task in tasks:
            with pytest.raises(EngineError, match=r"^the model's weights were replaced$"):
                await task
        assert engine.footprint().kv == 0


async def test_a_model_that_breaks_down_after_a_resumption(
    encoder: Path, awake: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await awake(encoder)

    def rest(*args: object) -> None:
        raise RuntimeError("a fault of this test")

    async with suspended(engine, ENCODED, after=1) as tasks:
        monkeypatch.setattr(EmbeddingStepper, "_choose", rest)
        await engine.resume()
        for task in tasks:
            with pytest.raises(EngineError, match=r"^the engine broke down$"):
                await task
        await engine.suspend(keep_kv=True)
        await engine.sleep(2)


async def test_newcomers_wait_for_the_others(encoder: Path, awake: OpenEngine, steps: STEPS) -> None:
    engine = await awake(encoder)
    async with suspended(engine, ENCODED, after=2) as tasks:
        newcomer = asyncio.create_task(engine.embed([prompt(5)]))
        await until(lambda: len(stepper_of(engine).inbox) == 1)
        await sleep_and_wake(engine, 1)
        assert not newcomer.done()
        steps.clear()
        await engine.resume()
        await asyncio.gather(newcomer, *tasks)
    assert [length for step in steps for length, _ in step] == [190, 60, 190, 3, 5]


async def test_another_engine_steps_meanwhile(encoder: Path, llama: Path, awake: OpenEngine) -> None:
    engine, other = await awake(encoder), await awake(llama)
    async with suspended(engine, ENCODED, after=1) as tasks:
        assert other._stepper and not engine._device.others_wait(other._stepper)
        assert len((await collect(other, prompt(5), greedy(20))).token_ids) == 20
        assert not any(task.done() for task in tasks)
        await engine.resume()
        await asyncio.gather(*tasks)


async def test_suspending_nothing(encoder: Path, awake: OpenEngine) -> None:
    engine = await awake(encoder)
    await engine.suspend(keep_kv=True)
    await sleep_and_wake(engine, 2)
    await engine.resume()
    assert len(await engine.embed([prompt(3)])) == 1
