"""Suspended answers go on as if nothing had been: wherever they were, whatever the engine did meanwhile."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import engine as engine_package
from engine.device import Device
from engine.engine import TorchEngine
from engine.stepping import GenerationStepper
from engine.types import (
    CheckpointError,
    Constraint,
    Delta,
    EngineError,
    EngineOptions,
    GenerateRequest,
    Level,
    OutOfMemory,
    SamplingParams,
)
from tests.engine import harness
from tests.engine.checkpoints import make_checkpoint
from tests.engine.conftest import OpenEngine
from tests.engine.harness import (
    FixedBudget,
    RecordingDecoder,
    Stepper,
    collect,
    greedy,
    paused,
    prompt,
    until,
)
from tests.exact import Reference, assert_same

Deltas = list[Delta]
PROMPTS = [prompt(length, seed=length) for length in (3, 150, 17, 64)]

both_levels = pytest.mark.parametrize("level", [1, 2])
both_forms = pytest.mark.parametrize("keep_kv", [True, False])


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four blocks of KV a chunk."""
    return make_checkpoint(tmp_path_factory.mktemp("wide"), head_dim=128, num_key_value_heads=6)


def requests(*sampling: SamplingParams, n: int = 1) -> list[GenerateRequest]:
    """One for each of PROMPTS."""
    asked = sampling if len(sampling) > 1 else sampling * len(PROMPTS)
    pairs = zip(PROMPTS, asked, strict=True)
    return [GenerateRequest(prompt_ids=ids, sampling=one, n=n) for ids, one in pairs]


def stepper_of(engine: TorchEngine) -> GenerationStepper:
    assert isinstance(engine._stepper, GenerationStepper)
    return engine._stepper


def by_the_layer(engine: TorchEngine, chunk: int = 64) -> None:
    """A step computes one layer of a chunk of prompts of this size, however long that takes."""
    stepper_of(engine).model.scheduler.budget = FixedBudget(chunk)
    stepper_of(engine)._others_wait = lambda: True


async def drain(engine: TorchEngine, request: GenerateRequest) -> Deltas:
    return [delta async for step in engine.generate(request) for delta in step]


@asynccontextmanager
async def suspended(
    engine: TorchEngine, asked: Sequence[GenerateRequest], *, after: int, keep_kv: bool
) -> AsyncIterator[list[asyncio.Task[Deltas]]]:
    """These requests, begun together and suspended after so many steps; the body is to resume them."""
    stepper = stepper_of(engine)

    def step() -> None:
        for _ in range(after):
            stepper.step()

    async with paused(engine._device):
        tasks = [asyncio.create_task(drain(engine, request)) for request in asked]
        await until(lambda: len(stepper.inbox) == len(asked))
        stepping = asyncio.create_task(engine._device.between_steps(step))
        suspending = asyncio.create_task(engine.suspend(keep_kv=keep_kv))
        await asyncio.sleep(0)
    await asyncio.gather(stepping, suspending)
    assert not any(task.done() for task in tasks)
    assert not stepper.has_work and not stepper.model.scheduler.prefilling
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def answers(deltas: Sequence[Deltas]) -> list[list[int]]:
    """Of requests with one choice."""
    return [[token for delta in one for token in delta.token_ids] for one in deltas]


async def sleep_and_wake(engine: TorchEngine, level: Level) -> None:
    await engine.sleep(level)
    await engine.trim_kv()
    await engine.wake()


def references(directory: Path, asked: Sequence[GenerateRequest]) -> list[Reference]:
    """Alone and undisturbed; needs a running loop."""
    stepper = Stepper(directory)
    alone = [stepper.answer(request.prompt_ids, request.sampling) for request in asked]
    stepper.close()
    return [Reference(one.token_ids, torch.stack(one.logits)) for one in alone]


def held_kv(engine: TorchEngine) -> torch.Tensor:
    """What is in the blocks of sequences."""
    kv = stepper_of(engine).model.kv
    blocks = sorted(kv.pool.held)
    return torch.stack([part[blocks] for layer in kv.layers for part in layer])


# The same answers


@both_levels
@pytest.mark.parametrize("name", ["llama", "qwen3"])
async def test_kept_sequences_go_on_bit_by_bit(
    request: pytest.FixtureRequest, awake: OpenEngine, name: str, level: Level
) -> None:
    engine = await awake(request.getfixturevalue(name), prefix_cache=False)
    by_the_layer(engine, chunk=512)
    recorder = RecordingDecoder.of(engine)
    async with suspended(engine, requests(greedy(20)), after=10, keep_kv=True) as tasks:
        await engine.resume()
        undisturbed = await asyncio.gather(*tasks)
    logits = torch.cat(recorder.steps)
    recorder.steps.clear()
    async with suspended(engine, requests(greedy(20)), after=10, keep_kv=True) as tasks:
        before = held_kv(engine)
        await sleep_and_wake(engine, level)
        assert torch.equal(held_kv(engine), before)
        await engine.resume()
        assert await asyncio.gather(*tasks) == undisturbed
    assert torch.equal(torch.cat(recorder.steps), logits)


@both_forms
@both_levels
@pytest.mark.parametrize("after", [1, 4, 8, 16], ids=lambda after: f"after_{after}")
async def test_the_same_is_said_wherever_it_was_suspended(
    llama: Path, awake: OpenEngine, after: int, level: Level, keep_kv: bool
) -> None:
    """Before the first token, in the middle of a chunk of a prompt beside answers, and later; two run while
    the others wait."""
    engine = await awake(llama, max_running=2)
    by_the_layer(engine)
    asked = requests(greedy(30))
    async with suspended(engine, asked, after=after, keep_kv=keep_kv) as tasks:
        await sleep_and_wake(engine, level)
        await engine.resume()
        said = answers(await asyncio.gather(*tasks))
    assert_same(references(llama, asked), said, "float32")


@both_forms
async def test_a_chunk_in_the_making_is_given_up(llama: Path, awake: OpenEngine, keep_kv: bool) -> None:
    engine = await awake(llama)
    by_the_layer(engine)
    asked = [GenerateRequest(prompt_ids=prompt(200), sampling=greedy(10))]
    stepper = stepper_of(engine)
    async with suspended(engine, asked, after=5, keep_kv=keep_kv) as tasks:
        assert stepper._prefill is None
        (sequence,) = stepper.model.scheduler.sequences
        assert sequence.computed == (64 if keep_kv else 0)
        assert all(holders == 1 for holders in stepper.model.kv.pool._holders.values() if holders)
        await sleep_and_wake(engine, 2)
        await engine.resume()
        said = answers(await asyncio.gather(*tasks))
    assert_same(references(llama, asked), said, "float32")


@both_forms
@pytest.mark.parametrize("after", [2, 6, 9])
async def test_choices_that_wait_for_their_prompt(
    llama: Path, awake: OpenEngine, after: int, keep_kv: bool
) -> None:
    engine = await awake(llama, max_running=5)
    by_the_layer(engine)
    sampling = SamplingParams(max_tokens=12, temperature=1.0, seed=5, ignore_eos=True)
    asked = [GenerateRequest(prompt_ids=prompt(100, seed=i), sampling=sampling, n=3) for i in range(2)]

    def by_choice(deltas: Sequence[Deltas]) -> list[list[int]]:
        return [
            [token for delta in one if delta.index == index for token in delta.token_ids]
            for one in deltas
            for index in range(3)
        ]

    undisturbed = by_choice([await drain(engine, request) for request in asked])
    await engine.reset_prefix_cache()
    async with suspended(engine, asked, after=after, keep_kv=keep_kv) as tasks:
        await sleep_and_wake(engine, 2)
        await engine.resume()
        assert by_choice(await asyncio.gather(*tasks)) == undisturbed


@both_forms
@pytest.mark.parametrize("after", [3, 12])
async def test_whatever_was_asked_for_goes_on(
    llama: Path, awake: OpenEngine, after: int, keep_kv: bool
) -> None:
    engine = await awake(llama)
    by_the_layer(engine)
    free = await collect(engine, PROMPTS[1], greedy(30))
    grammar = engine.compile(Constraint(kind="regex", value="[0-9]{14}x*"))
    asked = requests(
        SamplingParams(max_tokens=20, temperature=1.0, seed=3, logprobs=2, ignore_eos=True),
        greedy(30, stop=(free.text[-9:-5],), repetition_penalty=1.0),
        greedy(20, grammar=grammar, ignore_eos=False),
        greedy(20, prompt_logprobs=2, logprobs=1, presence_penalty=1.5, frequency_penalty=0.5),
    )
    undisturbed = [await drain(engine, request) for request in asked]
    await engine.reset_prefix_cache()
    async with suspended(engine, asked, after=after, keep_kv=keep_kv) as tasks:
        await sleep_and_wake(engine, 2)
        await engine.resume()
        assert [told(one) for one in await asyncio.gather(*tasks)] == [told(one) for one in undisturbed]


def told(deltas: Deltas) -> list[Any]:
    """With log probabilities as far as arithmetic allows."""

    def near(found: Any) -> Any:
        return found and [one and (one.token_id, one.rank, round(one.logprob, 2)) for one in found]

    return [
        (one.token_ids, one.text, one.finish_reason, near(one.logprobs), near(one.prompt_logprobs))
        for one in deltas
    ]


async def test_two_suspensions_in_a_row(llama: Path, awake: OpenEngine) -> None:
    engine = await awake(llama)
    by_the_layer(engine)
    asked = requests(greedy(30))
    async with suspended(engine, asked, after=9, keep_kv=True) as tasks:
        for keep_kv in (True, False, True):
            await sleep_and_wake(engine, 2)
            await engine.resume()
            await engine.suspend(keep_kv=keep_kv)
        await sleep_and_wake(engine, 1)
        await engine.resume()
        said = answers(await asyncio.gather(*tasks))
    assert_same(references(llama, asked), said, "float32")


# Memory


@both_levels
async def test_kept_memory_is_counted_and_all_else_is_given_back(
    wide: Path, awake: OpenEngine, level: Level
) -> None:
    engine = await awake(wide)
    by_the_layer(engine, chunk=512)
    full = engine.footprint()
    chunk = stepper_of(engine).model.kv.chunk_bytes
    assert (full.kv, full.kept) == (chunk, 0)
    await collect(engine, prompt(300, seed=9), greedy(2))  # stays in the prefix cache
    async with suspended(engine, requests(greedy(40)), after=8, keep_kv=True) as tasks:
        kept = engine.footprint().kept
        assert 5 * chunk < kept < engine.footprint().kv
        await engine.reset_prefix_cache()
        await engine.sleep(level)
        asleep = engine.footprint()
        assert (asleep.kv, asleep.kept) == (kept, kept)
        assert asleep.weights == (full.weights if level == 1 else 0)
        assert asleep.to_wake == full.weights - asleep.weights
        assert await engine.trim_kv() == 0
        await engine.wake()
        await engine.resume()
        await asyncio.gather(*tasks)
    assert engine.footprint().kept == 0
    await engine.sleep(level)
    assert engine.footprint().kv == 0
    await engine.wake()
    after = engine.footprint()
    assert (after.device, after.kept, after.to_wake) == (full.device, 0, 0)


@both_levels
async def test_what_is_not_kept_is_given_back(wide: Path, awake: OpenEngine, level: Level) -> None:
    engine = await awake(wide)
    by_the_layer(engine, chunk=512)
    chunk = stepper_of(engine).model.kv.chunk_bytes
    async with suspended(engine, requests(greedy(40)), after=8, keep_kv=False) as tasks:
        await engine.sleep(level)
        asleep = engine.footprint()
        assert (asleep.kv, asleep.kept) == (0, 0)
        needed = -(-(150 + 6) // 64) * chunk
        assert asleep.to_wake == stepper_of(engine).model.weights.nbytes - asleep.weights + needed
        await engine.wake()
        assert engine.footprint().kv == needed
        await engine.resume()
        await asyncio.gather(*tasks)


async def test_what_was_kept_may_be_given_up_asleep(wide: Path, awake: OpenEngine) -> None:
    engine = await awake(wide)
    by_the_layer(engine, chunk=512)
    asked = requests(greedy(20))
    async with suspended(engine, asked, after=8, keep_kv=True) as tasks:
        await engine.sleep(2)
        assert engine.footprint().kept > 0
        await engine.suspend(keep_kv=False)
        assert (engine.footprint().kv, engine.footprint().kept) == (0, 0)
        await engine.wake()
        await engine.resume()
        said = answers(await asyncio.gather(*tasks))
    assert_same(references(wide, asked), said, "float32")


async def test_kept_memory_gives_way_to_another_engine_that_runs(
    wide: Path, own_device: Device, awake: OpenEngine
) -> None:
    other, engine = await awake(wide), await awake(wide)
    by_the_layer(engine, chunk=512)
    asked = requests(greedy(20))
    async with suspended(engine, asked, after=8, keep_kv=True) as tasks:
        await engine.sleep(1)
        kept = engine.footprint().kept
        own_device.budget.limit = own_device.budget.used
        long = [GenerateRequest(prompt_ids=prompt(230), sampling=greedy(5))]
        assert_same(references(wide, long), answers([await drain(other, long[0])]), "float32")
        left = engine.footprint()
        assert 0 < left.kept < kept
        assert left.kv == left.kept
        await other.sleep(1)
        await engine.wake()
        await engine.resume()
        said = answers(await asyncio.gather(*tasks))
    assert_same(references(wide, asked), said, "float32")


async def test_a_limit_of_its_own_costs_the_suspended_nothing_and_is_not_waited_for(
    wide: Path, own_device: Device, awake: OpenEngine
) -> None:
    other, engine = await awake(wide, kv_limit=2**21), await awake(wide)
    async with suspended(engine, requests(greedy(200)), after=8, keep_kv=True):
        await engine.sleep(2)
        kept = engine.footprint().kept
        async with asyncio.timeout(harness.patience):
            with pytest.raises(OutOfMemory):
                await drain(other, GenerateRequest(prompt_ids=prompt(500), sampling=greedy(5)))
        assert engine.footprint().kept == kept


async def test_what_the_suspended_give_up_may_not_be_enough(
    wide: Path, own_device: Device, awake: OpenEngine
) -> None:
    other, engine = await awake(wide), await awake(wide)
    async with suspended(engine, requests(greedy(200)), after=8, keep_kv=True):
        await engine.sleep(2)
        own_device.budget.limit = own_device.budget.used - 2 * stepper_of(other).model.kv.chunk_bytes
        async with asyncio.timeout(harness.patience):
            with pytest.raises(OutOfMemory):
                await drain(other, GenerateRequest(prompt_ids=prompt(500), sampling=greedy(5)))
        assert engine.footprint().kv == 0


async def test_no_memory_for_a_wake_takes_nothing_and_loses_nothing(
    wide: Path, own_device: Device, awake: OpenEngine
) -> None:
    engine = await awake(wide)
    by_the_layer(engine, chunk=512)
    asked = requests(greedy(20))
    async with suspended(engine, asked, after=8, keep_kv=False) as tasks:
        await engine.sleep(2)
        needed = engine.footprint().to_wake
        for limit in (0, stepper_of(engine).model.kv.chunk_bytes, needed - 1):
            own_device.budget.limit = limit
            with pytest.raises(OutOfMemory):
                await engine.wake()
            assert own_device.budget.used == 0
        own_device.budget.limit = needed
        await engine.wake()
        await engine.resume()
        said = answers(await asyncio.gather(*tasks))
        assert own_device.budget.used <= needed
    assert_same(references(wide, asked), said, "float32")


@both_forms
async def test_a_wake_that_fails_loses_nothing(
    wide: Path, awake: OpenEngine, monkeypatch: pytest.MonkeyPatch, keep_kv: bool
) -> None:
    engine = await awake(wide)
    by_the_layer(engine, chunk=512)
    asked = requests(greedy(20))

    def preadv(*args: Any) -> int:
        raise OSError(errno.EIO, "Input/output error")

    async with suspended(engine, asked, after=8, keep_kv=keep_kv) as tasks:
        await engine.sleep(2)
        asleep = engine.footprint()
        with monkeypatch.context() as patch:
            patch.setattr("engine.reader.os.preadv", preadv)
            with pytest.raises(CheckpointError):
                await engine.wake()
        assert engine.footprint() == asleep
        with pytest.raises(EngineError, match="not awake"):
            await engine.resume()
        await engine.wake()
        await engine.resume()
        said = answers(await asyncio.gather(*tasks))
    assert_same(references(wide, asked), said, "float32")


# Those who leave, and those who come


@both_forms
@pytest.mark.parametrize("n", [1, 3])
async def test_who_leaves_gives_memory_back_without_a_wake(
    wide: Path, awake: OpenEngine, n: int, keep_kv: bool
) -> None:
    engine = await awake(wide)
    by_the_layer(engine, chunk=512)
    asked = requests(greedy(20), n=n)
    stepper = stepper_of(engine)
    async with suspended(engine, asked, after=6, keep_kv=keep_kv) as tasks:
        await engine.sleep(2)
        before = engine.footprint()
        assert (before.kept > 0) == keep_kv
        for task in tasks[1:]:
            task.cancel()
        await until(lambda: len(stepper.model.scheduler.sequences) == n)
        left = await engine._device.between_steps(engine.footprint)
        assert left.kv == left.kept <= before.kept / 2
        await engine.wake()
        await engine.resume()
        said = [[token for one in await tasks[0] if not one.index for token in one.token_ids]]
    assert_same(references(wide, asked[:1]), said, "float32")


@both_forms
async def test_all_may_leave(wide: Path, awake: OpenEngine, keep_kv: bool) -> None:
    engine = await awake(wide)
    async with suspended(engine, requests(greedy(100)), after=8, keep_kv=keep_kv):
        await engine.sleep(2)
    await until(lambda: not stepper_of(engine).model.scheduler.has_work)
    assert (await engine._device.between_steps(engine.footprint)).kv == 0
    await engine.wake()
    await engine.resume()
    assert len((await collect(engine, prompt(4), greedy(5))).token_ids) == 5


@both_forms
@pytest.mark.parametrize("asleep", [True, False])
async def test_closing_ends_the_suspended(
    llama: Path, awake: OpenEngine, keep_kv: bool, asleep: bool
) -> None:
    engine = await awake(llama)
    async with suspended(engine, requests(greedy(100), n=2), after=4, keep_kv=keep_kv) as tasks:
        if asleep:
            await engine.sleep(1)
        await engine.close()
        for task in tasks:
            with pytest.raises(EngineError, match=r"^the model was closed$"):
                await task
        assert engine.footprint().device == 0


async def test_new_weights_end_the_suspended(llama: Path, awake: OpenEngine) -> None:
    engine = await awake(llama)
    async with suspended(engine, requests(greedy(100)), after=4, keep_kv=True) as tasks:
        await engine.sleep(2)
        await engine.reload_weights()
        for task in tasks:
            with pytest.raises(EngineError, match=r"^the model's weights were replaced$"):
                await task
        assert engine.footprint().kv == 0


async def test_newcomers_wait_for_the_others(llama: Path, awake: OpenEngine) -> None:
    engine = await awake(llama)
    async with suspended(engine, requests(greedy(20)), after=8, keep_kv=True) as tasks:
        newcomer = asyncio.create_task(collect(engine, prompt(5), greedy(5)))
        await until(lambda: len(stepper_of(engine).inbox) == 1)
        await sleep_and_wake(engine, 1)
        assert not newcomer.done()
        await engine.resume()
        await asyncio.gather(*tasks)
        assert len((await newcomer).token_ids) == 5


async def test_another_engine_steps_meanwhile(llama: Path, awake: OpenEngine) -> None:
    engine, other = await awake(llama), await awake(llama)
    async with suspended(engine, requests(greedy(20)), after=8, keep_kv=True) as tasks:
        assert not engine._device.others_wait(stepper_of(other))
        assert len((await collect(other, prompt(5), greedy(50))).token_ids) == 50
        assert not any(task.done() for task in tasks)
        await engine.resume()
        await asyncio.gather(*tasks)


async def test_suspending_nothing(llama: Path, awake: OpenEngine) -> None:
    engine = await awake(llama)
    await engine.resume()
    await engine.suspend(keep_kv=True)
    await sleep_and_wake(engine, 2)
    await engine.resume()
    assert len((await collect(engine, prompt(5), greedy(5))).token_ids) == 5
    cold = engine_package.open(str(llama), "cpu")
    await cold.suspend(keep_kv=True)
    await cold.resume()


# Any order

disturbances = st.lists(
    st.tuples(
        st.integers(0, 25), st.booleans(), st.lists(st.sampled_from([1, 2, "trim", "give up"]), max_size=3)
    ),
    min_size=1,
    max_size=4,
)
"""Each: after how many more deltas, whether KV is kept, and what is done before the model is awake again."""
_expected: list[Reference] = []


@given(disturbances=disturbances, chunk=st.sampled_from([16, 64, None]), running=st.integers(1, 4))
@settings(max_examples=20)
def test_any_suspensions(
    llama: Path, disturbances: list[tuple[int, bool, list[Any]]], chunk: int | None, running: int
) -> None:
    asked = requests(greedy(12))

    async def drive() -> list[list[int]]:
        engine = engine_package.open(str(llama), "cpu", EngineOptions(max_running=running))
        assert isinstance(engine, TorchEngine)
        await engine.wake()
        if chunk:
            by_the_layer(engine, chunk)
        said: list[Deltas] = [[] for _ in asked]

        async def ask(index: int) -> None:
            async for step in engine.generate(asked[index]):
                said[index] += step

        tasks = [asyncio.create_task(ask(index)) for index in range(len(asked))]
        for after, keep_kv, doing in disturbances:
            target = sum(map(len, said)) + after
            await until(lambda: sum(map(len, said)) >= target or all(task.done() for task in tasks))  # noqa: B023
            await disturb(engine, keep_kv, doing, lambda: sum(map(len, said)))
        await asyncio.gather(*tasks)
        await engine.sleep(1)
        assert engine.footprint().kv == 0
        await engine.close()
        return answers(said)

    async def undisturbed() -> list[Reference]:
        return references(llama, asked)

    if not _expected:
        _expected.extend(asyncio.run(undisturbed()))
    assert_same(_expected, asyncio.run(drive()), "float32")


async def disturb(engine: TorchEngine, keep_kv: bool, doing: Sequence[Any], count: Callable[[], int]) -> None:
    await engine.suspend(keep_kv=keep_kv)
    before = count()
    for what in doing:
        if what == "trim":
            await engine.trim_kv()
        elif what == "give up":
            await engine.suspend(keep_kv=False)
        else:
            await engine.sleep(what)
    await engine.wake()
    assert count() == before
    await engine.resume()


# Whether it has gone on


@both_forms
async def test_it_has_gone_on_when_the_first_token_has_come(
    llama: Path, awake: OpenEngine, keep_kv: bool
) -> None:
    engine = await awake(llama, prefix_cache=False)
    await asyncio.wait_for(engine.went_on(), 1)
    by_the_layer(engine)
    async with suspended(engine, requests(greedy(40)), after=30, keep_kv=keep_kv) as tasks:
        await engine.sleep(2)
        await engine.wake()
        await engine.resume()
        await asyncio.wait_for(engine.went_on(), 10)
        assert not any(task.done() for task in tasks)


async def test_it_has_gone_on_when_nobody_is_left_to(llama: Path, awake: OpenEngine) -> None:
    engine = await awake(llama)
    async with suspended(engine, requests(greedy(40)), after=30, keep_kv=False) as tasks:
        await engine.sleep(1)
        await engine.wake()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await engine.resume()
        await asyncio.wait_for(engine.went_on(), 10)


async def test_what_is_computed_again_has_not_gone_on(
    llama: Path, awake: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await awake(llama, prefix_cache=False)
    async with suspended(engine, requests(greedy(40)), after=30, keep_kv=False):
        with monkeypatch.context() as stopped:
            stopped.setattr(GenerationStepper, "_compute_prompts", lambda self, decoding, began: None)
            await engine.resume()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(engine.went_on(), 0.2)
        await asyncio.wait_for(engine.went_on(), 10)
