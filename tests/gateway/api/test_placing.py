"""Tokens that are told of are the text, and are told where they lie in it, whatever is held back or cut."""

from __future__ import annotations

from collections.abc import Sequence as ListLike
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine import Delta, GenerateRequest, SamplingParams, TokenLogprob
from engine.sequence import Sequence
from engine.tokenizer import Tokenizer
from gateway.api.logprobs import ChatLogprobWriter, TextLogprobWriter, echoed_logprobs
from gateway.api.schema.logprobs import ChatLogprobs, ChatTokenLogprob, TextLogprobs
from gateway.api.spelling import Spelling
from tests.engine.test_tokenizer import byte_ids, sentencepiece_like

DEMO = Path(__file__).parents[3] / "engine" / "demo" / "demo-a" / "tokenizer.json"
EOS = 2
NEVER = "\ue000"
"""What comes in no text."""


@pytest.fixture(scope="module")
def byte_level() -> Tokenizer:
    return Tokenizer(DEMO)


@pytest.fixture(scope="module")
def fallback(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """Which leaves out the space that a text begins with."""
    file = tmp_path_factory.mktemp("tokenizers") / "fallback.json"
    sentencepiece_like().save(str(file))
    return Tokenizer(file)


def spelling(tokenizer: Tokenizer, shown: frozenset[int] = frozenset()) -> Spelling:
    """All that it asks of an engine is its tokenizer's."""
    return Spelling(cast("Any", tokenizer), shown)


def told(token_id: int) -> TokenLogprob:
    return TokenLogprob(token_id=token_id, logprob=-1.0, rank=1, top=((token_id, -1.0), (7, -2.0)))


def answer(
    tokenizer: Tokenizer, ids: ListLike[int], prompt: ListLike[int] = (3,), **sampling: Any
) -> list[Delta]:
    """As the engine gives it out when it draws ``ids``."""
    params = SamplingParams(max_tokens=len(ids), logprobs=2, **sampling)
    request = GenerateRequest(prompt_ids=prompt, sampling=params)
    sequence = Sequence(request, tokenizer, frozenset({EOS}), cast("Any", None))
    deltas = []
    for token_id in ids:
        deltas.append(sequence.append(token_id, told(token_id)))
        if sequence.finish_reason:
            break
    return deltas


def text_of(deltas: ListLike[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def chat_tokens(
    tokenizer: Tokenizer,
    deltas: ListLike[Delta],
    prompt: ListLike[int] = (3,),
    shown: frozenset[int] = frozenset(),
) -> list[ChatTokenLogprob]:
    """The same, streamed or whole; never more than there is text for."""
    streamed: list[ChatTokenLogprob] = []
    writer, text = ChatLogprobWriter(spelling(tokenizer, shown), prompt), ""
    for delta in deltas:
        text += delta.text
        logprobs = writer.take(delta)
        assert (logprobs is not None) == bool(delta.text or delta.finish_reason)
        streamed += logprobs.content if logprobs else []
        assert text.startswith(said(streamed))
    whole = msgspec.json.encode(ChatLogprobWriter(spelling(tokenizer, shown), prompt).whole(deltas))
    assert msgspec.json.decode(whole, type=ChatLogprobs).content == streamed
    return streamed


def said(tokens: ListLike[ChatTokenLogprob]) -> str:
    return b"".join(bytes(token.bytes) for token in tokens).decode(errors="replace")


def text_logprobs(tokenizer: Tokenizer, deltas: ListLike[Delta], prefix: str = "") -> TextLogprobs:
    """The same, streamed or whole."""
    writer = TextLogprobWriter(spelling(tokenizer), (3,), prefix)
    parts = [part for delta in deltas if (part := writer.take(delta))]
    names = TextLogprobs.__struct_fields__
    streamed = TextLogprobs(**{name: [i for part in parts for i in getattr(part, name)] for name in names})
    whole = msgspec.json.encode(TextLogprobWriter(spelling(tokenizer), (3,), prefix).whole(deltas))
    assert msgspec.json.decode(whole, type=TextLogprobs) == streamed
    return streamed


IDS = st.lists(
    st.one_of(st.integers(0, 5), st.integers(6, 261), st.integers(6, 703), st.integers(300, 310)),
    min_size=1,
    max_size=30,
)
"""Special tokens, bytes, words, and words that come again."""


@st.composite
def cuts(draw: st.DrawFn, text: str) -> dict[str, Any]:
    """Stop strings that the text has, or has all of but the end, and other ways to end."""
    stops = []
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(text)))
        part = text[start : start + draw(st.integers(1, 8))]
        stops.append(part + draw(st.sampled_from(["", NEVER])))
    return {
        "stop": tuple(stop for stop in stops if stop),
        "ignore_eos": draw(st.booleans()),
        "min_tokens": draw(st.sampled_from([0, 0, 3])),
        "shown_tokens": draw(st.sampled_from([frozenset(), frozenset({4, 5})])),
    }


@given(ids=IDS, data=st.data())
@settings(max_examples=300)
def test_the_tokens_of_a_chat_are_its_text(
    byte_level: Tokenizer, ids: list[int], data: st.DataObject
) -> None:
    ways = data.draw(cuts(byte_level.decode(ids)))
    deltas = answer(byte_level, ids, **ways)
    assert said(chat_tokens(byte_level, deltas, shown=ways["shown_tokens"])) == text_of(deltas)


@given(text=st.text(st.sampled_from("🐭日é ab\n"), min_size=1, max_size=20), data=st.data())
@settings(max_examples=150)
@example(text=" a", data=None)
@example(text="  ", data=None)
def test_so_they_are_where_a_space_is_left_out(
    fallback: Tokenizer, text: str, data: st.DataObject | None
) -> None:
    ids = fallback.encode(text, add_special_tokens=False)
    ways = data.draw(cuts(text)) if data else {}
    for prompt in ([], byte_ids("a")):
        deltas = answer(fallback, ids, prompt, **{**ways, "shown_tokens": frozenset()})
        tokens = chat_tokens(fallback, deltas, prompt)
        assert said(tokens) == text_of(deltas)
        assert len(tokens) <= len(ids)


@given(ids=IDS, data=st.data(), prefix=st.sampled_from(["", "Once "]))
@settings(max_examples=300)
def test_an_offset_is_where_the_token_begins(
    byte_level: Tokenizer, ids: list[int], data: st.DataObject, prefix: str
) -> None:
    ways = {**data.draw(cuts(byte_level.decode(ids))), "shown_tokens": frozenset()}
    deltas = answer(byte_level, ids, **ways)
    text = prefix + text_of(deltas)
    found = text_logprobs(byte_level, deltas, prefix)
    assert found.tokens == [byte_level.token_bytes(i).decode(errors="replace") for i in ids[: len(deltas)]]
    assert found.text_offset == sorted(found.text_offset)
    assert len(prefix) <= found.text_offset[0] and found.text_offset[-1] <= len(text)
    for token_id, token, offset in zip(ids, found.tokens, found.text_offset, strict=False):
        if "\ufffd" not in token and token_id not in byte_level.special:
            assert (text[offset:] + "\ufffd").startswith((token[: len(text) - offset], "\ufffd"))


@given(ids=IDS, data=st.data())
@settings(max_examples=150)
def test_what_is_held_back_for_nothing_moves_no_offset(
    byte_level: Tokenizer, ids: list[int], data: st.DataObject
) -> None:
    stops = [stop + NEVER for stop in data.draw(cuts(byte_level.decode(ids)))["stop"]]
    held = text_logprobs(byte_level, answer(byte_level, ids, stop=tuple(stops), ignore_eos=True))
    assert held == text_logprobs(byte_level, answer(byte_level, ids, ignore_eos=True))


@given(ids=IDS)
@settings(max_examples=100)
def test_an_echos_offsets_are_those_of_an_answer(byte_level: Tokenizer, ids: list[int]) -> None:
    logprobs = [None, *map(told, ids[1:])]
    echo = msgspec.json.encode(echoed_logprobs(spelling(byte_level), ids, logprobs, byte_level.decode(ids)))
    found = msgspec.json.decode(echo, type=TextLogprobs)
    answered = text_logprobs(byte_level, answer(byte_level, ids, prompt=[], ignore_eos=True))
    assert (found.tokens, found.text_offset) == (answered.tokens, answered.text_offset)
    assert found.token_logprobs == [None, *[-1.0] * (len(ids) - 1)]
