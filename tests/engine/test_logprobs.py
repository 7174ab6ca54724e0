"""Log probabilities are those of the decoder's own distribution, of answers and of prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from engine import runner
from engine.logprobs import token_logprobs
from engine.types import Constraint, Delta, GenerateRequest, RequestError, SamplingParams, TokenLogprob
from tests.engine.conftest import OpenEngine, OpenStepper
from tests.engine.harness import RecordingDecoder, greedy, prompt


def expected(logits: torch.Tensor, token: int, top: int) -> TokenLogprob:
    """By a sort of the whole row."""
    row = logits.double().log_softmax(-1).numpy()
    order = np.argsort(-row, kind="stable")[:top]
    return TokenLogprob(
        token_id=token,
        logprob=pytest.approx(float(row[token]), abs=1e-5),
        rank=1 + int((row > row[token]).sum()),
        top=tuple((int(i), pytest.approx(float(row[i]), abs=1e-5)) for i in order),
    )


def test_each_row_gets_as_many_as_it_asks_for_best_first() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(30, 200, generator=generator) * 4).round() / 2  # some are equal
    tokens = torch.randint(200, (30,), generator=generator)
    tops = [row % 7 for row in range(30)]
    found = token_logprobs(logits, tokens, tops)
    wanted = zip(logits, tokens.tolist(), tops, strict=True)
    assert found == [expected(row, token, top) for row, token, top in wanted]
    assert [len(one.top) for one in token_logprobs(logits, tokens, [999] * 30)] == [200] * 30


async def deltas(engine: Any, prompt_ids: list[int], sampling: SamplingParams, n: int = 1) -> list[Delta]:
    request = GenerateRequest(prompt_ids=prompt_ids, sampling=sampling, n=n)
    return [delta async for step in engine.generate(request) for delta in step]


CHANGES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampled": {"temperature": 1.5, "top_p": 0.8, "seed": 1},
    "penalised": {"presence_penalty": 2.0, "repetition_penalty": 1.5, "logit_bias": {7: 50.0}},
    "banned": {"min_tokens": 12, "ignore_eos": False, "stop_token_ids": frozenset(range(100))},
}


@pytest.mark.parametrize("name", [*CHANGES, "constrained"])
async def test_an_answers_are_of_the_raw_distribution(llama: Path, awake: OpenEngine, name: str) -> None:
    engine = await awake(llama)
    changes = CHANGES.get(name) or {
        "grammar": engine.compile(Constraint(kind="regex", value="[0-9]{12}x*")),
        "temperature": 1.0,
    }
    recorder = RecordingDecoder.of(engine)
    got = await deltas(engine, prompt(9), greedy(12, **{"logprobs": 3, **changes}))
    assert len(got) == 12
    for delta, logits in zip(got, recorder.steps, strict=True):
        assert delta.logprobs == (expected(logits[-1], delta.token_ids[0], 3),)
        assert delta.prompt_logprobs is None


async def test_none_where_none_are_asked_for(llama: Path, awake: OpenEngine) -> None:
    engine = await awake(llama)
    assert {delta.logprobs for delta in await deltas(engine, prompt(9), greedy(3))} == {()}
    only = await deltas(engine, prompt(9), greedy(3, logprobs=0))
    assert all(len(delta.logprobs) == 1 and not delta.logprobs[0].top for delta in only)


def of_prompt(directory: Path, ids: list[int], top: int) -> list[TokenLogprob | None]:
    """As transformers' logits say."""
    model: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0]
    rest = zip(logits, ids[1:], strict=False)
    return [None, *(expected(row, token, top) for row, token in rest)]


@pytest.mark.parametrize("length", [1, 2, 16, 150])
async def test_a_prompts_are_those_of_transformers(
    llama: Path, awake: OpenEngine, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    """In pieces, beside another request, and though the cache has its beginning."""
    monkeypatch.setattr(runner, "_SCORED", 7)
    engine = await awake(llama)
    ids = prompt(length)
    wanted = of_prompt(llama, ids, 2)
    await deltas(engine, ids, greedy(1))
    for n in (1, 2):
        got = await deltas(engine, ids, greedy(3, prompt_logprobs=2), n)
        told = [delta for delta in got if delta.prompt_logprobs is not None]
        assert len(told) == 1 and told[0].index == 0
        assert told[0] is next(delta for delta in got if delta.index == 0)
        assert list(told[0].prompt_logprobs or ()) == wanted
        assert {delta.logprobs for delta in got} == {()}


@pytest.mark.parametrize("length", [1, 16, 64])
async def test_a_prompts_without_an_answer(llama: Path, awake: OpenEngine, length: int) -> None:
    """Of a prompt that fills the context, too; in its next coming its beginning is in the cache."""
    engine = await awake(llama, max_model_len=64)
    ids = prompt(length)
    wanted = of_prompt(llama, ids, 2)
    for n in (1, 3):
        got = await deltas(engine, ids, greedy(0, prompt_logprobs=2, logprobs=1), n)
        assert sorted(delta.index for delta in got) == list(range(n))
        assert {(delta.token_ids, delta.text, delta.logprobs) for delta in got} == {((), "", ())}
        assert {delta.finish_reason for delta in got} == {"length"}
        assert list(got[0].prompt_logprobs or ()) == wanted
        assert not any(delta.prompt_logprobs for delta in got[1:])
    (only,) = await deltas(engine, ids, greedy(0))
    assert only == Delta(finish_reason="length", cached_tokens=(length - 1) // 16 * 16)


async def test_a_context_without_room_for_an_answer(llama: Path, awake: OpenEngine) -> None:
    engine = await awake(llama, max_model_len=64)
    for length, max_tokens in ((64, 1), (65, 0)):
        with pytest.raises(RequestError) as caught:
            await deltas(engine, prompt(length), greedy(max_tokens))
        assert caught.value.code == "context_length_exceeded"


async def test_a_prompts_survive_chunks_and_preemption(llama: Path, stepper: OpenStepper) -> None:
    steps = stepper(llama, chunk=16, blocks=12)
    prompts = [prompt(length, seed=length) for length in (60, 50, 40)]
    sequences = [steps.add(ids, greedy(40, prompt_logprobs=1)) for ids in prompts]
    steps.run()
    for ids, sequence in zip(prompts, sequences, strict=True):
        assert sequence.prompt_logprobs == of_prompt(llama, ids, 1)
    computed = sum(count for step in steps.log for _, count in step)
    assert computed > sum(len(sequence.token_ids) - 1 for sequence in sequences), "none was preempted"
