"""Prompts that begin as others did: computed only from where they part, with the same answers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytest
import torch

from engine.engine import TorchEngine
from engine.types import EngineOptions, GenerateRequest, SamplingParams
from tests.engine.conftest import OpenEngine, OpenStepper
from tests.engine.harness import Answer, Stepper, collect, greedy, prompt, until
from tests.exact import Reference, assert_same, wrong_token


def reference(answer: Answer) -> Reference:
    return Reference(answer.token_ids, torch.stack(answer.logits))


def computed_tokens(run: Stepper) -> int:
    return sum(count for step in run.log for _, count in step)


async def cached_tokens(engine: TorchEngine, prompt_ids: Sequence[int], tokens: int = 1) -> int:
    request = GenerateRequest(prompt_ids=prompt_ids, sampling=greedy(tokens))
    deltas = [delta async for step in engine.generate(request) for delta in step]
    assert all(delta.cached_tokens == 0 for delta in deltas[1:])
    return deltas[0].cached_tokens


@pytest.mark.parametrize("common", [0, 15, 16, 17, 32, 100])
@pytest.mark.parametrize(("name", "dtype"), [("llama", "float32"), ("qwen3", "bfloat16")])
async def test_prompts_that_begin_alike(
    request: pytest.FixtureRequest,
    stepper: OpenStepper,
    name: str,
    dtype: Literal["float32", "bfloat16"],
    common: int,
) -> None:
    directory = request.getfixturevalue(name)
    first = prompt(common) + prompt(30, seed=1)
    second = prompt(common) + prompt(30, seed=2)
    assert first[common] != second[common]
    run = stepper(directory)
    run.answer(first, greedy(4))
    before = computed_tokens(run)
    sequence = run.add(second, greedy(20))
    run.run()
    shared = common // 16 * 16
    assert sequence.cached_tokens == shared
    assert computed_tokens(run) - before == len(second) - shared + 19
    alone = stepper(directory, prefix_cache=False).answer(second, greedy(20))
    assert_same([reference(alone)], [run.answers[sequence].token_ids], dtype)


@pytest.mark.parametrize("length", [1, 16, 17, 32, 33, 64])
async def test_of_the_same_prompt_at_least_a_token_is_computed(
    llama: Path, stepper: OpenStepper, length: int
) -> None:
    run = stepper(llama)
    first = run.answer(prompt(length), greedy(10))
    again = run.add(prompt(length), greedy(10))
    run.run()
    assert again.cached_tokens == (length - 1) // 16 * 16
    assert_same([reference(first)], [run.answers[again].token_ids], "float32")


async def test_answers_are_found_as_prompts_are(llama: Path, stepper: OpenStepper) -> None:
    """As the turns of a conversation need it."""
    run = stepper(llama)
    said = prompt(20)
    for turn in range(3):
        answer = run.answer(said, greedy(25))
        said = said + answer.token_ids + prompt(7, seed=turn)
        known = len(said) - 7 - 1  # the last token of the answer was never computed
        sequence = run.add(said, greedy(3))
        run.run()
        assert sequence.cached_tokens == known // 16 * 16
    alone = stepper(llama, prefix_cache=False).answer(said, greedy(3))
    assert wrong_token(reference(alone), run.answers[sequence].token_ids, "float32") is None


async def test_blocks_of_one_that_still_runs_are_found(llama: Path, stepper: OpenStepper) -> None:
    run = stepper(llama)
    running = run.add(prompt(40), greedy(60))
    for _ in range(30):
        run.step()
    late = run.add([*prompt(40), *run.answers[running].token_ids, 7], greedy(5))
    run.step()
    assert late.cached_tokens == (40 + 29) // 16 * 16
    assert set(late.blocks[:4]) == set(running.blocks[:4])
    run.run()
    assert len(run.answers[running].token_ids) == 60
    assert run.model.kv.used_blocks == 0


async def test_a_block_is_found_when_it_is_full_and_computed(llama: Path, stepper: OpenStepper) -> None:
    run = stepper(llama, chunk=32)
    run.add(prompt(90), greedy(10))
    found = []
    for _ in range(10):
        run.step()
        found.append(len(run.model.kv.pool.match(prompt(90))))
    assert found[:4] == [2, 4, 5, 5]


async def test_the_same_prompt_at_the_same_time(llama: Path, stepper: OpenStepper) -> None:
    """Neither finds the other's blocks, and both go on for themselves."""
    run = stepper(llama)
    both = [run.add(prompt(100), greedy(40)) for _ in range(2)]
    run.run()
    assert [sequence.cached_tokens for sequence in both] == [0, 0]
    one, other = (run.answers[sequence] for sequence in both)
    assert wrong_token(reference(one), other.token_ids, "float32") is None
    run.model.kv.settle()
    assert run.model.kv.pool.cached_blocks == (100 + 39) // 16, "each is kept once"


async def test_a_long_prompt_in_chunks_after_a_hit(llama: Path, stepper: OpenStepper) -> None:
    run = stepper(llama, chunk=64)
    run.answer(prompt(200), greedy(2))
    ids = prompt(200)[:150] + prompt(240, seed=5)
    alone = stepper(llama).answer(ids, greedy(10))
    assert_same([reference(alone)], [run.answer(ids, greedy(10)).token_ids], "float32")


@pytest.mark.parametrize("blocks", [12, 20])
async def test_cached_blocks_give_way_and_answers_stay_right(
    llama: Path, stepper: OpenStepper, blocks: int
) -> None:
    run, roomy = stepper(llama, blocks=blocks), stepper(llama, prefix_cache=False)
    prompts = [prompt(50, seed=seed % 3) + prompt(30, seed=seed) for seed in range(9)]
    for ids in prompts:
        wanted = roomy.answer(ids, greedy(12))
        assert wrong_token(reference(wanted), run.answer(ids, greedy(12)).token_ids, "float32") is None
        assert run.model.kv.used_blocks == 0


async def test_a_preempted_sequence_finds_what_it_computed(llama: Path, stepper: OpenStepper) -> None:
    run = stepper(llama, blocks=12)
    first, second = run.add(prompt(60), greedy(70)), run.add(prompt(80, seed=1), greedy(50))
    run.run()
    prefills = [count for step in run.log for sequence, count in step if sequence is second and count > 1]
    assert prefills[0] == 80
    assert len(prefills) > 1, "it was never preempted"
    assert prefills[1] < 80, "nothing of it was found"
    alone = stepper(llama)
    for sequence, ids in ((first, prompt(60)), (second, prompt(80, seed=1))):
        wanted = alone.answer(ids, greedy(len(run.answers[sequence].token_ids)))
        assert wrong_token(reference(wanted), run.answers[sequence].token_ids, "float32") is None


async def test_prompt_logprobs_are_of_all_tokens(llama: Path, awake: OpenEngine) -> None:
    engine = await awake(llama)
    await collect(engine, prompt(50), greedy(2))
    request = GenerateRequest(prompt_ids=prompt(50), sampling=greedy(2, prompt_logprobs=0))
    (first, *_), *_ = [step async for step in engine.generate(request)]
    assert first.cached_tokens == 0
    assert first.prompt_logprobs and len(first.prompt_logprobs) == 50


@pytest.mark.parametrize("level", [1, 2])
async def test_sleep_empties_the_cache(llama: Path, awake: OpenEngine, level: Literal[1, 2]) -> None:
    engine = await awake(llama)
    wanted = (await collect(engine, prompt(60), greedy(8))).token_ids
    await until(lambda: not engine._stepper.has_work)  # type: ignore[union-attr]
    assert await cached_tokens(engine, prompt(60)) == 48, "it lasts through idle time"
    await engine.sleep(level)
    assert engine.footprint().kv == 0
    await engine.wake()
    assert await cached_tokens(engine, prompt(60)) == 0
    assert (await collect(engine, prompt(60), greedy(8))).token_ids == wanted


async def test_reset_and_trim_empty_the_cache_of_an_awake_model(llama: Path, awake: OpenEngine) -> None:
    engine = await awake(llama)
    for forget in (engine.reset_prefix_cache, engine.trim_kv):
        await collect(engine, prompt(60), greedy(8))
        assert await cached_tokens(engine, prompt(60)) == 48
        await forget()
        assert await cached_tokens(engine, prompt(60)) == 0


async def test_reset_while_running_harms_nobody(llama: Path, awake: OpenEngine) -> None:
    engine = await awake(llama)
    wanted = (await collect(engine, prompt(60), greedy(300))).token_ids
    running = [asyncio.create_task(collect(engine, prompt(60), greedy(300))) for _ in range(3)]
    while not all(task.done() for task in running):
        await engine.reset_prefix_cache()
    assert [task.result().token_ids for task in running] == [wanted] * 3
    kv = engine._model.kv  # type: ignore[union-attr]
    await until(lambda: kv.used_blocks == 0)
    assert kv.pool.fault() is None


async def test_resetting_what_was_never_loaded_does_nothing(llama: Path) -> None:
    opened = TorchEngine(str(llama), "cpu", EngineOptions())
    await opened.reset_prefix_cache()
    assert opened.footprint().kv == 0


async def test_without_the_cache_nothing_is_kept(llama: Path, awake: OpenEngine) -> None:
    engine = await awake(llama, prefix_cache=False)
    for _ in range(2):
        assert await cached_tokens(engine, prompt(60)) == 0
    assert engine._model.kv.pool.cached_blocks == 0  # type: ignore[union-attr]


async def test_sampled_answers_do_not_depend_on_hits(llama: Path, awake: OpenEngine) -> None:
    engine = await awake(llama)
    sampling = SamplingParams(max_tokens=20, temperature=0.8, seed=5, ignore_eos=True)
    first = await collect(engine, prompt(60), sampling)
    assert (await collect(engine, prompt(60), sampling)).token_ids == first.token_ids
