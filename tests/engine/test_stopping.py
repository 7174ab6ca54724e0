"""When an answer ends, and what of its text is given out: stop strings and tokens, least and most tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.sequence import Sequence
from engine.stream import DeltaStream
from engine.tokenizer import Tokenizer
from engine.types import GenerateRequest
from tests.engine.conftest import OpenEngine
from tests.engine.harness import Answer, collect, greedy, prompt

TEXT = "The dormouse sleeps; naïve 日本語 🐭 and so on, and on."
EOS = 0


@pytest.fixture
def tokenizer(llama: Path) -> Tokenizer:
    return Tokenizer(llama / "tokenizer.json")


def say(tokenizer: Tokenizer, ids: list[int], max_tokens: int = 1000, **sampling: Any) -> Answer:
    """What a sequence gives out when the model chooses ``ids``, as far as it gets."""
    request = GenerateRequest(prompt_ids=prompt(3), sampling=greedy(max_tokens, **sampling))
    sequence, answer = Sequence(request, tokenizer, frozenset({EOS}), DeltaStream()), Answer()
    for token in ids:
        answer.take(sequence.append(token))
        if sequence.finish_reason:
            break
    return answer


@pytest.mark.parametrize("start", range(0, len(TEXT), 4))
@pytest.mark.parametrize("length", [1, 2, 5, 9])
async def test_a_stop_string_wherever_its_tokens_border(
    tokenizer: Tokenizer, start: int, length: int
) -> None:
    ids, stop = tokenizer.encode(TEXT), TEXT[start : start + length]
    answer = say(tokenizer, ids, stop=("not in it", stop))
    assert answer.finish_reason == "stop"
    assert answer.text == TEXT[: TEXT.index(stop)]
    assert stop in tokenizer.decode(answer.token_ids)
    before = tokenizer.decode(answer.token_ids[:-1])
    assert stop not in before or before.endswith("\ufffd"), "it went on longer than it had to"


async def test_a_stop_string_that_only_begins_is_text_after_all(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(TEXT)
    answer = say(tokenizer, ids, len(ids), stop=("sleeps long", "on.!"))
    assert (answer.text, answer.finish_reason) == (TEXT, "length")


async def test_a_stop_string_completed_by_the_last_token_is_a_stop(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(TEXT)
    needed = len(say(tokenizer, ids, stop=("sleeps;",)).token_ids)
    answer = say(tokenizer, ids, needed, stop=("sleeps;",))
    assert (answer.text, answer.finish_reason) == ("The dormouse ", "stop")
    short = say(tokenizer, ids, needed - 1, stop=("sleeps;",))
    assert (short.text, short.finish_reason) == ("The dormouse sleeps", "length")


async def test_half_a_character_at_the_end_comes_out_and_may_be_a_stop_string(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("a 🐻")
    assert len(ids) > 3, "this vocabulary has the character as one token"
    cut = say(tokenizer, ids, len(ids) - 1)
    assert (cut.text, cut.finish_reason) == ("a \ufffd", "length")
    stopped = say(tokenizer, ids, len(ids) - 1, stop=("\ufffd",))
    assert (stopped.text, stopped.finish_reason) == ("a ", "stop")


async def test_what_is_held_back_comes_out_before_an_end_token(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("one tw")
    answer = say(tokenizer, [*ids, EOS, *ids], stop=("two",), ignore_eos=False)
    assert (answer.text, answer.finish_reason) == ("one tw", "stop")
    assert answer.token_ids == [*ids, EOS]


async def test_no_stop_string_before_the_least_tokens(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("abcabcabcabc")
    assert say(tokenizer, ids, stop=("c",)).text == "ab"
    least = say(tokenizer, ids, stop=("c",), min_tokens=7)
    assert (least.text, least.finish_reason) == ("abcabcab", "stop")
    assert len(least.token_ids) == 9


async def test_no_end_before_the_least_tokens(llama: Path, awake: OpenEngine) -> None:
    engine = await awake(llama)
    free = await collect(engine, prompt(10), greedy(40))
    stops = frozenset(free.token_ids[2:5])
    plain = await collect(engine, prompt(10), greedy(40, stop_token_ids=stops))
    assert plain.token_ids == free.token_ids[:3]
    least = await collect(engine, prompt(10), greedy(40, stop_token_ids=stops, min_tokens=10))
    assert len(least.token_ids) >= 10
    assert stops.isdisjoint(least.token_ids[:10])


async def test_end_of_sequence_counts_unless_ignored(llama: Path, awake: OpenEngine) -> None:
    """Sampled hot, so that the end token comes sooner or later."""
    engine = await awake(llama)
    hot = {"temperature": 50.0, "seed": 1}
    ended = await collect(engine, prompt(10), greedy(400, ignore_eos=False, **hot))
    assert (ended.finish_reason, ended.token_ids[-1]) == ("stop", EOS)
    assert EOS not in ended.token_ids[:-1]
    on = await collect(engine, prompt(10), greedy(400, **hot))
    assert on.token_ids[: len(ended.token_ids)] == ended.token_ids
    assert len(on.token_ids) == 400


@pytest.mark.parametrize("most", [1, 2, 17])
async def test_the_most_tokens(llama: Path, awake: OpenEngine, most: int) -> None:
    engine = await awake(llama)
    request = GenerateRequest(prompt_ids=prompt(10), sampling=greedy(most))
    steps = [delta async for step in engine.generate(request) for delta in step]
    assert [len(step.token_ids) for step in steps] == [1] * most
    assert [step.finish_reason for step in steps] == [None] * (most - 1) + ["length"]
