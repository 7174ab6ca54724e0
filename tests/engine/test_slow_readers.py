"""Readers who are far behind: their answers pause, hold nothing meanwhile, and go on as if they had not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import pytest

from engine.engine import TorchEngine
from engine.stream import DeltaStream
from engine.types import Delta, EngineError, GenerateRequest, SamplingParams
from tests.engine import harness
from tests.engine.conftest import OpenEngine
from tests.engine.harness import Answer, collect, greedy, prompt, until

AHEAD = 40
TOKENS = 200


def request(sampling: SamplingParams | None = None, n: int = 1, read_ahead: int = AHEAD) -> GenerateRequest:
    sampling = sampling or greedy(TOKENS)
    return GenerateRequest(prompt_ids=prompt(50), sampling=sampling, n=n, read_ahead=read_ahead)


async def set_aside(engine: TorchEngine, choices: int = 1) -> None:
    """Wait until they are, and nothing else is to be done."""
    assert engine._model and engine._stepper
    scheduler, stepper = engine._model.scheduler, engine._stepper
    await until(lambda: len(scheduler.aside) == choices and not stepper.has_work)
    assert not scheduler.running and not scheduler.waiting


async def rest(stream: AsyncGenerator[list[Delta]], answer: Answer) -> Answer:
    async for deltas in stream:
        for delta in deltas:
            answer.take(delta)
    return answer


async def begin(stream: AsyncGenerator[list[Delta]]) -> Answer:
    """With the first token read."""
    answer = Answer()
    for delta in await anext(stream):
        answer.take(delta)
    return answer


@pytest.mark.parametrize("prefix_cache", [True, False])
async def test_an_answer_pauses_and_goes_on_with_the_same_tokens(
    llama: Path, awake: OpenEngine, prefix_cache: bool
) -> None:
    engine = await awake(llama, prefix_cache=prefix_cache)
    alone = await collect(engine, prompt(50), greedy(TOKENS))
    async with aclosing(engine.generate(request())) as stream:
        answer = await begin(stream)
        await set_aside(engine)
        assert engine._model and engine._model.kv.used_blocks == 0
        while len(answer.token_ids) < TOKENS:
            await asyncio.sleep(0.001)  # about a step: it comes and goes
            for delta in await asyncio.wait_for(anext(stream), min(5, harness.patience)):
                answer.take(delta)
    assert answer.token_ids == alone.token_ids
    assert answer.text == alone.text


async def test_no_more_waits_than_was_asked_for(
    llama: Path, awake: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await awake(llama)
    streams: list[DeltaStream] = []

    class Known(DeltaStream):
        def __init__(self, read_ahead: int) -> None:
            super().__init__(read_ahead)
            streams.append(self)

    monkeypatch.setattr("engine.engine.DeltaStream", Known)
    async with aclosing(engine.generate(request(n=2))) as stream:
        await begin(stream)
        await set_aside(engine, choices=2)
        assert AHEAD // 2 <= streams[0]._steps.qsize() <= AHEAD // 2 + 2, "and what was under way"


async def test_others_take_the_place_of_one_who_does_not_read(llama: Path, awake: OpenEngine) -> None:
    engine = await awake(llama, max_running=1)
    async with aclosing(engine.generate(request())) as stream:
        answer = await begin(stream)
        await set_aside(engine)
        assert len((await collect(engine, prompt(9), greedy(30))).token_ids) == 30
        assert len((await rest(stream, answer)).token_ids) == TOKENS


async def test_one_that_leaves_while_aside_is_forgotten(llama: Path, awake: OpenEngine) -> None:
    engine = await awake(llama)
    assert engine._model
    stream = engine.generate(request(n=3))
    await begin(stream)
    await set_aside(engine, choices=3)
    await stream.aclose()
    await until(lambda: not engine._model.scheduler.sequences)


async def test_a_sleep_ends_those_aside(llama: Path, awake: OpenEngine) -> None:
    engine = await awake(llama)
    async with aclosing(engine.generate(request())) as stream:
        answer = await begin(stream)
        await set_aside(engine)
        await engine.sleep(1)
        with pytest.raises(EngineError, match="put to sleep"):
            await rest(stream, answer)
        assert len(answer.token_ids) >= AHEAD, "what there was is read first"


@pytest.mark.parametrize("keep_kv", [True, False])
@pytest.mark.parametrize("read_meanwhile", [True, False])
async def test_those_aside_are_suspended_with_the_others(
    llama: Path, awake: OpenEngine, keep_kv: bool, read_meanwhile: bool
) -> None:
    engine = await awake(llama)
    alone = await collect(engine, prompt(50), greedy(TOKENS))
    async with aclosing(engine.generate(request())) as stream:
        answer = await begin(stream)
        await set_aside(engine)
        await engine.suspend(keep_kv=keep_kv)
        await engine.sleep(1)
        if read_meanwhile:
            for _ in range(AHEAD - 1):
                for delta in await anext(stream):
                    answer.take(delta)
        await engine.wake()
        await engine.resume()
        await asyncio.wait_for(engine.went_on(), 20)  # nobody waits for one who does not read
        assert (await rest(stream, answer)).token_ids == alone.token_ids
