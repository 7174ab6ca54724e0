"""Several choices of one request: one prompt, one stream, as many answers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from engine.engine import TorchEngine
from engine.sequence import Sequence as Running
from engine.types import Delta, EngineError, GenerateRequest, SamplingParams
from tests.engine.conftest import OpenEngine, OpenStepper
from tests.engine.harness import before_passes, collect, greedy, prompt, until
from tests.exact import Reference, wrong_token


def sampled(max_tokens: int, seed: int | None = None) -> SamplingParams:
    return SamplingParams(max_tokens=max_tokens, temperature=1.0, seed=seed, ignore_eos=True)


async def choices(
    engine: TorchEngine, ids: list[int], sampling: SamplingParams, n: int
) -> tuple[list[list[int]], list[list[Delta]]]:
    """Token ids by choice, and the steps as they came."""
    steps = [step async for step in engine.generate(GenerateRequest(prompt_ids=ids, sampling=sampling, n=n))]
    found: list[list[int]] = [[] for _ in range(n)]
    for delta in (delta for step in steps for delta in step):
        found[delta.index] += delta.token_ids
    return found, steps


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("length", [1, 15, 16, 17, 40, 64])
async def test_the_prompt_is_computed_once(
    llama: Path, stepper: OpenStepper, length: int, cache: bool
) -> None:
    run = stepper(llama, prefix_cache=cache)
    leader = run.add(prompt(length), greedy(6), n=4)
    run.run()
    computed = sum(count for step in run.log for _, count in step)
    tail = length - (length - 1) // 16 * 16
    assert computed == length + 3 * tail + 4 * 5
    alone = stepper(llama).answer(prompt(length), greedy(6))
    wanted = Reference(alone.token_ids, torch.stack(alone.logits))
    answers = [answer.token_ids for answer in run.answers.values()]
    assert len(answers) == 4
    assert all(wrong_token(wanted, answer, "float32") is None for answer in answers)
    assert leader.cached_tokens == 0
    assert run.model.kv.used_blocks == 0


async def test_full_blocks_are_shared_while_they_run(llama: Path, stepper: OpenStepper) -> None:
    run = stepper(llama, prefix_cache=False)
    run.add(prompt(99), greedy(20), n=5)
    run.step()
    run.step()
    assert len(run.model.scheduler.running) == 5
    assert run.model.kv.used_blocks == 99 // 16 + 5


@pytest.mark.parametrize("max_tokens", [1, 12])
async def test_choice_i_is_the_answer_with_seed_plus_i(
    llama: Path, awake: OpenEngine, max_tokens: int
) -> None:
    engine = await awake(llama, prefix_cache=False)
    found, steps = await choices(engine, prompt(40), sampled(max_tokens, seed=7), n=4)
    alone = [(await collect(engine, prompt(40), sampled(max_tokens, seed=7 + i))).token_ids for i in range(4)]
    assert found == alone
    finishes = [delta.index for step in steps for delta in step if delta.finish_reason]
    assert sorted(finishes) == [0, 1, 2, 3]
    assert all(len({delta.index for delta in step}) == len(step) for step in steps)
    if max_tokens > 1:
        assert max(len(step) for step in steps) == 4, "one list a step"


async def test_choices_without_a_seed_differ(llama: Path, awake: OpenEngine) -> None:
    found, _ = await choices(await awake(llama), prompt(10), sampled(20), n=4)
    assert len({tuple(answer) for answer in found}) == 4


async def test_more_choices_than_may_run_wait_their_turn(llama: Path, awake: OpenEngine) -> None:
    engine = await awake(llama, max_running=3)
    found, _ = await choices(engine, prompt(40), greedy(8), n=8)
    assert [len(answer) for answer in found] == [8] * 8


async def test_every_choice_tells_of_the_prompts_cached_tokens(llama: Path, awake: OpenEngine) -> None:
    engine = await awake(llama)
    for expected in (0, 32):
        _, steps = await choices(engine, prompt(40), greedy(3), n=3)
        first: dict[int, int] = {}
        for delta in (delta for step in steps for delta in step):
            first.setdefault(delta.index, delta.cached_tokens)
        assert first == {0: expected, 1: expected, 2: expected}


@pytest.mark.parametrize("blocks", [8, 10, 14])
async def test_choices_with_hardly_any_room(llama: Path, stepper: OpenStepper, blocks: int) -> None:
    """Several requests of several choices: those that wait hold blocks in common with others, which must
    keep nobody from going on."""
    run = stepper(llama, blocks=blocks)
    groups = [(prompt(70, seed=seed), run.add(prompt(70, seed=seed), greedy(30), n=4)) for seed in range(3)]
    whole = {leader: [leader, *leader.followers] for _, leader in groups}
    run.run()
    alone = stepper(llama)
    for ids, leader in groups:
        one = alone.answer(ids, greedy(30))
        wanted = Reference(one.token_ids, torch.stack(one.logits))
        for choice in whole[leader]:
            assert wrong_token(wanted, run.answers[choice].token_ids, "float32") is None
    assert run.model.kv.used_blocks == 0


async def test_those_who_wait_give_up_what_they_share_when_nobody_can_go_on(
    llama: Path, stepper: OpenStepper
) -> None:
    run = stepper(llama, blocks=10, max_running=2)
    first = run.add(prompt(70), greedy(60), n=3)
    run.add(prompt(66, seed=1), greedy(60))
    run.run()
    assert [len(answer.token_ids) for answer in run.answers.values()] == [60] * 4
    assert run.model.kv.used_blocks == 0
    alone = stepper(llama)
    for ids, sequence in ((prompt(70), first), (prompt(66, seed=1), list(run.answers)[-1])):
        one = alone.answer(ids, greedy(60))
        wanted = Reference(one.token_ids, torch.stack(one.logits))
        assert wrong_token(wanted, run.answers[sequence].token_ids, "float32") is None


@pytest.mark.parametrize("after", [0, 1, 5])
async def test_leaving_ends_all_choices(llama: Path, awake: OpenEngine, after: int) -> None:
    engine = await awake(llama)
    request = GenerateRequest(prompt_ids=prompt(300), sampling=greedy(200), n=4)
    stream = engine.generate(request)
    first = asyncio.ensure_future(anext(stream))
    if after:
        await first
        for _ in range(after):
            await anext(stream)
    else:
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
    await stream.aclose()
    stepper = engine._stepper
    assert stepper
    await until(lambda: not stepper.has_work)
    assert engine._model.kv.used_blocks == 0  # type: ignore[union-attr]


async def test_a_failure_of_one_choice_ends_all(
    llama: Path, awake: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await awake(llama)

    def fail(scheduled: Sequence[tuple[Running, int]]) -> None:
        if any(sequence.index == 2 for sequence, _ in scheduled):
            raise RuntimeError("a fault of this test")

    before_passes(monkeypatch, fail)
    with pytest.raises(EngineError):
        await choices(engine, prompt(40), greedy(50), n=3)
    stepper = engine._stepper
    assert stepper
    await until(lambda: not stepper.has_work)
    assert engine._model.kv.used_blocks == 0  # type: ignore[union-attr]
    assert len((await collect(engine, prompt(40), greedy(5))).token_ids) == 5


async def test_what_waits_for_a_prompt_at_a_sleep_ends_too(llama: Path, awake: OpenEngine) -> None:
    engine = await awake(llama)
    task = asyncio.create_task(choices(engine, prompt(300), greedy(200), n=6))
    stepper = engine._stepper
    assert stepper
    await until(lambda: stepper.has_work)
    await engine.sleep(1)
    with pytest.raises(EngineError, match=r"^the model was put to sleep$"):
        await task
    assert not stepper.has_work
    assert engine.footprint().kv == 0
