"""Answers of a whole engine: worker, stream, limits, leaving, and failures that stay with their culprit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.engine import TorchEngine
from engine.runner import Prefill, Runner
from engine.sequence import Sequence
from engine.types import EngineError, GenerateRequest, OutOfMemory, RequestError, SamplingParams
from tests.engine.checkpoints import make_checkpoint
from tests.engine.conftest import OpenEngine, OpenStepper
from tests.engine.harness import (
    before_passes,
    collect,
    edit_json,
    greedy,
    limit_blocks,
    paused,
    prompt,
    until,
)


def used_blocks(engine: TorchEngine) -> int:
    assert engine._model is not None
    return engine._model.kv.used_blocks


async def test_the_text_is_that_of_the_tokens(llama: Path, awake: OpenEngine) -> None:
    engine = await awake(llama)
    answer = await collect(engine, prompt(10), greedy(60))
    assert answer.finish_reason == "length"
    assert len(answer.token_ids) == 60
    assert answer.text == engine.decode(answer.token_ids)


async def test_the_worker_says_what_the_parts_say(
    llama: Path, awake: OpenEngine, stepper: OpenStepper
) -> None:
    engine = await awake(llama)
    prompts = [prompt(length, seed=length) for length in (3, 290, 17)]
    answers = await asyncio.gather(*(collect(engine, ids, greedy(20)) for ids in prompts))
    assert [a.token_ids for a in answers] == [stepper(llama).answer(i, greedy(20)).token_ids for i in prompts]


async def test_an_end_of_sequence_token_stops_and_is_not_in_the_text(llama: Path, awake: OpenEngine) -> None:
    engine = await awake(llama)
    free = await collect(engine, prompt(10), greedy(20))
    at = next(i for i, token in enumerate(free.token_ids) if token not in free.token_ids[:i] and i > 3)
    stopped = await collect(engine, prompt(10), greedy(20, stop_token_ids=frozenset({free.token_ids[at]})))
    assert stopped.finish_reason == "stop"
    assert stopped.token_ids == free.token_ids[: at + 1]
    assert stopped.text == engine.decode(free.token_ids[:at])


async def test_every_eos_of_generation_config_stops(tmp_path: Path, awake: OpenEngine) -> None:
    directory = make_checkpoint(tmp_path)
    engine = await awake(directory)
    third = (await collect(engine, prompt(10), greedy(3))).token_ids[2]
    edit_json(directory / "generation_config.json", lambda c: c.update(eos_token_id=[299, third]))
    again = await awake(directory)
    answer = await collect(again, prompt(10), greedy(9, ignore_eos=False))
    assert (answer.finish_reason, answer.token_ids[-1]) == ("stop", third)
    assert len((await collect(again, prompt(10), greedy(9))).token_ids) == 9, "ignore_eos"


@pytest.mark.parametrize("asked", [40, 41, 1000])
async def test_an_answer_ends_at_the_models_length(llama: Path, awake: OpenEngine, asked: int) -> None:
    engine = await awake(llama, max_model_len=64)
    answer = await collect(engine, prompt(24), greedy(asked))
    assert (len(answer.token_ids), answer.finish_reason) == (40, "length")


async def test_a_prompt_one_below_the_models_length_gets_one_token(llama: Path, awake: OpenEngine) -> None:
    engine = await awake(llama, max_model_len=64)
    assert len((await collect(engine, prompt(63), greedy(5))).token_ids) == 1
    with pytest.raises(RequestError) as caught:
        await collect(engine, prompt(64), greedy(5))
    assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize("ids", [[], [-1], [5, 10**6]])
async def test_an_impossible_prompt_is_refused(llama: Path, awake: OpenEngine, ids: list[int]) -> None:
    engine = await awake(llama)
    with pytest.raises(RequestError):
        await collect(engine, ids, greedy(1))


@pytest.mark.parametrize("token", [-1, 10**6])
async def test_a_stop_token_out_of_vocabulary_harms_nobody(
    llama: Path, awake: OpenEngine, token: int
) -> None:
    """It is masked while ``min_tokens`` holds: no other token may be, and no neighbour may fail."""
    engine = await awake(llama)
    sampling = greedy(8, min_tokens=5, stop_token_ids=frozenset({token}))
    plain = await collect(engine, prompt(10), greedy(8))
    odd, neighbour = await asyncio.gather(
        collect(engine, prompt(10), sampling), collect(engine, prompt(10), greedy(8))
    )
    assert odd.token_ids == neighbour.token_ids == plain.token_ids


async def test_leaving_in_mid_stream_frees_the_blocks_within_a_step(
    llama: Path, awake: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await awake(llama)
    blocks_by_step: list[int] = []
    before_passes(monkeypatch, lambda scheduled: blocks_by_step.append(used_blocks(engine)))
    stream = engine.generate(GenerateRequest(prompt_ids=prompt(200), sampling=greedy(300)))
    await anext(stream)
    stays = asyncio.create_task(collect(engine, prompt(20), greedy(150)))
    await until(lambda: len(blocks_by_step) > 5)
    async with paused(engine._device):
        await stream.aclose()
        left_at = len(blocks_by_step) + 2  # the passes of the step that may be under way
    assert len((await stays).token_ids) == 150
    assert max(blocks_by_step[: left_at - 2]) >= 13
    assert max(blocks_by_step[left_at:]) <= 11, "its blocks were still taken in the next step"
    await until(lambda: used_blocks(engine) == 0)


async def test_leaving_before_the_first_token_frees_everything(llama: Path, awake: OpenEngine) -> None:
    engine = await awake(llama, max_running=2)
    tasks = [asyncio.create_task(collect(engine, prompt(300, seed=i), greedy(200))) for i in range(6)]
    await asyncio.sleep(0.02)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await until(lambda: not engine._stepper.has_work)
    assert used_blocks(engine) == 0


@pytest.mark.parametrize(("cached", "kept"), [(False, 1), (True, 3)])
async def test_a_quiet_engine_keeps_a_chunk_or_what_its_prefix_cache_may(
    tmp_path: Path, awake: OpenEngine, cached: bool, kept: int
) -> None:
    path = make_checkpoint(tmp_path, head_dim=128, num_key_value_heads=6)
    engine = await awake(path, prefix_cache=cached)
    kv = engine._model.kv  # type: ignore[union-attr]
    kv._quiet_limit = 3 * kv.chunk_bytes + 1
    await asyncio.gather(*(collect(engine, prompt(400, seed=i), greedy(2)) for i in range(4)))
    await until(lambda: not engine._stepper.has_work)
    await until(lambda: engine.footprint().kv <= kept * kv.chunk_bytes)
    assert await engine.trim_kv() == kept * kv.chunk_bytes
    assert engine.footprint().kv == 0


async def test_a_stream_gets_tokens_between_the_chunks_of_a_long_prompt(
    llama: Path, awake: OpenEngine
) -> None:
    engine = await awake(llama)
    order: list[str] = []

    async def say(name: str, length: int, tokens: int) -> None:
        request = GenerateRequest(prompt_ids=prompt(length), sampling=greedy(tokens))
        async for _ in engine.generate(request):
            order.append(name)  # noqa: PERF401 - as they come, not when all have come

    talking = asyncio.create_task(say("talking", 4, 400))
    await until(lambda: "talking" in order)
    before = len(order)
    await say("late", 500, 1)
    assert order[before:].count("talking") >= 2
    await talking


class Fault:
    """Makes the runner fail in the steps that ``hits`` one of the scheduled sequences."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, hits: Callable[[Sequence], bool]) -> None:
        def fail(scheduled: Any) -> None:
            if any(hits(sequence) for sequence, _ in scheduled):
                raise RuntimeError("a fault of this test")

        before_passes(monkeypatch, fail)


async def test_a_failure_in_the_middle_of_a_chunk_ends_its_sequences_and_no_others(
    llama: Path, awake: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await awake(llama)
    talking = asyncio.create_task(collect(engine, prompt(9), greedy(300)))
    await until(lambda: used_blocks(engine) > 1)  # its prompt is computed
    real = Runner.advance

    def fail(runner: Runner, prefill: Prefill) -> bool:
        if prefill.forward.layer == 1:
            raise RuntimeError("a fault of this test")
        return real(runner, prefill)

    with monkeypatch.context() as faulty:
        faulty.setattr(Runner, "advance", fail)
        with pytest.raises(EngineError, match="a fault of this test"):
            await collect(engine, prompt(40), greedy(5))
    assert len((await collect(engine, prompt(40), greedy(5))).token_ids) == 5
    assert len((await talking).token_ids) == 300
    await until(lambda: used_blocks(engine) == 0)


async def test_a_failing_step_ends_its_sequences_and_the_next_one_works(
    llama: Path, awake: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await awake(llama, max_running=1)
    expected = (await collect(engine, prompt(9), greedy(5))).token_ids
    Fault(monkeypatch, lambda sequence: sequence.prompt_length == 7)
    results = await asyncio.gather(
        collect(engine, prompt(7), greedy(5)),
        collect(engine, prompt(9), greedy(5)),
        return_exceptions=True,
    )
    assert isinstance(results[0], EngineError)
    assert not isinstance(results[1], BaseException)
    assert results[1].token_ids == expected
    assert used_blocks(engine) == 0


async def test_a_failure_after_the_step_stays_with_its_sequence(
    llama: Path, awake: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Turning a token into text fails for one answer: the worker must outlive that."""
    engine = await awake(llama)
    real = Sequence.append

    def append(sequence: Sequence, *token: Any) -> Any:
        if sequence.prompt_length == 7:
            raise RuntimeError("a fault of this test")
        return real(sequence, *token)

    monkeypatch.setattr(Sequence, "append", append)
    async with asyncio.timeout(20):
        results = await asyncio.gather(
            collect(engine, prompt(7), greedy(5)),
            collect(engine, prompt(9), greedy(30)),
            return_exceptions=True,
        )
    assert isinstance(results[0], EngineError)
    assert not isinstance(results[1], BaseException)
    assert len(results[1].token_ids) == 30


@pytest.mark.parametrize(("length", "blocks"), [(200, 8), (400, 20)])
async def test_one_that_can_never_fit_is_out_of_memory_and_others_go_on(
    llama: Path, awake: OpenEngine, length: int, blocks: int
) -> None:
    roomy = await awake(llama)
    expected = (await collect(roomy, prompt(9), greedy(20))).token_ids
    engine = await awake(llama)
    limit_blocks(engine._model, blocks)  # type: ignore[arg-type]
    async with asyncio.timeout(30):
        results = await asyncio.gather(
            collect(engine, prompt(9), greedy(20)),
            collect(engine, prompt(length), greedy(5)),
            collect(engine, prompt(9), greedy(20)),
            return_exceptions=True,
        )
    assert isinstance(results[1], OutOfMemory)
    assert [answer.token_ids for answer in (results[0], results[2])] == [expected, expected]  # type: ignore[union-attr]


async def test_generating_asleep_is_an_error(llama: Path, awake: OpenEngine) -> None:
    engine = await awake(llama)
    for level in (1, 2):
        await engine.sleep(level)
        with pytest.raises(EngineError, match="not awake"):
            await collect(engine, prompt(4), greedy(1))


async def test_what_still_runs_at_a_sleep_ends_with_an_error(
    llama: Path, awake: OpenEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine = await awake(llama)
    task = asyncio.create_task(collect(engine, prompt(4), greedy(400)))
    await until(lambda: engine._stepper.has_work)
    await engine.sleep(1)
    with pytest.raises(EngineError, match=r"^the model was put to sleep$"):
        await task
    assert not caplog.records, "sleeping is no failure"
    assert engine.footprint().kv == 0


async def test_sampling_defaults_to_all_of_the_vocabulary(llama: Path, awake: OpenEngine) -> None:
    engine = await awake(llama)
    sampling = SamplingParams(max_tokens=30, temperature=5.0, seed=3, ignore_eos=True)
    answer = await collect(engine, prompt(4), sampling)
    assert len(set(answer.token_ids)) > 20
