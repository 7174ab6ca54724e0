"""Text as it comes is the text of the whole, and stop strings cut it wherever their pieces fall."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as HubTokenizer
from tokenizers import decoders, models, normalizers, processors

from engine.tokenizer import IncrementalDecoder, StopMatcher, Tokenizer
from engine.types import CheckpointError
from tests.engine.checkpoints import make_tokenizer

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
PIECES = ["▁", "a", "b", "▁the", "▁dor", "mouse", "é", "▁日", "1", "\n"]


def sentencepiece_like() -> HubTokenizer:
    """As Llama 2's: a space is a mark, a leading one is dropped, and rare characters come byte by byte."""
    words = ["<unk>", "<s>", "</s>", *BYTES, *PIECES]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = HubTokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokenizers")


@pytest.fixture(scope="module")
def byte_level(directory: Path) -> Tokenizer:
    make_tokenizer().backend_tokenizer.save(str(directory / "byte_level.json"))
    return Tokenizer(directory / "byte_level.json")


@pytest.fixture(scope="module")
def fallback(directory: Path) -> Tokenizer:
    sentencepiece_like().save(str(directory / "fallback.json"))
    return Tokenizer(directory / "fallback.json")


def as_it_comes(tokenizer: Tokenizer, prompt: list[int], ids: list[int]) -> list[str]:
    decoder = IncrementalDecoder(tokenizer, prompt)
    return [decoder.push(token) for token in ids] + [decoder.flush()]


def byte_ids(text: str) -> list[int]:
    """The ids of ``text`` byte by byte, in the vocabulary of ``fallback``."""
    return [3 + byte for byte in text.encode()]


@given(ids=st.lists(st.integers(0, 299), max_size=60))
@settings(max_examples=150)
def test_random_ids_byte_level(byte_level: Tokenizer, ids: list[int]) -> None:
    assert "".join(as_it_comes(byte_level, [], ids)) == byte_level.decode(ids)


@given(text=st.text(max_size=40))
@settings(max_examples=150)
def test_any_text_byte_level(byte_level: Tokenizer, text: str) -> None:
    ids = byte_level.encode(text)
    pieces = as_it_comes(byte_level, [], ids)
    assert "".join(pieces) == byte_level.decode(ids)
    assert not any("\ufffd" in piece for piece in pieces) or "\ufffd" in text


@given(text=st.text(st.sampled_from("🐭日é a\n"), max_size=30))
@settings(max_examples=150)
@example("🐭🐭🐭🐭🐭🐭")
@example("日本語の文章はとても長い。")
def test_any_text_with_byte_fallback(fallback: Tokenizer, text: str) -> None:
    ids = fallback.encode(text)
    pieces = as_it_comes(fallback, [], ids)
    assert "".join(pieces) == fallback.decode(ids)
    assert not any("\ufffd" in piece for piece in pieces)


@given(data=st.data(), before=st.text(max_size=20), text=st.text(max_size=20))
@settings(max_examples=150)
@pytest.mark.parametrize("name", ["byte_level", "fallback"])
def test_an_answer_continues_its_prompt(
    request: pytest.FixtureRequest, name: str, data: st.DataObject, before: str, text: str
) -> None:
    """Whatever of the prompt is the context, the text is what the answer adds to it."""
    tokenizer: Tokenizer = request.getfixturevalue(name)
    prompt, ids = tokenizer.encode(before), tokenizer.encode(text, add_special_tokens=False)
    whole, known = tokenizer.decode(prompt + ids), tokenizer.decode(prompt)
    assume(whole.startswith(known) and not known.endswith("\ufffd"))
    assert "".join(as_it_comes(tokenizer, prompt, ids)) == whole[len(known) :]


def test_a_long_prompt_of_bytes_and_an_answer_of_bytes(fallback: Tokenizer) -> None:
    prompt, ids = byte_ids("🐭🐭🐭"), byte_ids("🐭日é")
    assert [piece for piece in as_it_comes(fallback, prompt, ids) if piece] == ["🐭", "日", "é"]


@given(
    ids=st.lists(st.one_of(st.integers(0, 3), st.integers(0, 299)), max_size=40),
    shown=st.sets(st.integers(0, 3)),
)
@settings(max_examples=100)
@example(ids=[130, 0, 0, 0, 98], shown=set())
@example(ids=[130, 0, 0, 0, 98], shown={1})
def test_special_tokens_that_are_shown(byte_level: Tokenizer, ids: list[int], shown: set[int]) -> None:
    """They are part of the text, and the others change nothing."""
    decoder = IncrementalDecoder(byte_level, [], frozenset(shown))
    text = "".join([*(decoder.push(token) for token in ids), decoder.flush()])
    kept = [token for token in ids if token > 3 or token in shown]
    assert text == byte_level.decode(kept, skip_special_tokens=False)
    if not shown:
        assert text == byte_level.decode(ids)


def test_half_a_character_is_held_back_and_given_out_at_the_end(byte_level: Tokenizer) -> None:
    ids = [token for char in "x🐭" for token in byte_level.encode(char)]
    assert len(ids) > 2, "this vocabulary has the character as one token"
    assert as_it_comes(byte_level, [], ids) == ["x", *[""] * (len(ids) - 2), "🐭", ""]
    cut = as_it_comes(byte_level, [], ids[:-1])
    assert cut[-1] == "\ufffd"
    assert cut[1:-1] == [""] * (len(ids) - 2)


def test_special_tokens_are_no_text(byte_level: Tokenizer) -> None:
    x = byte_level.encode("x")
    assert "".join(as_it_comes(byte_level, [1, 2], [0, *x, 1, *x, 0])) == "xx"


def test_a_garbage_run_is_not_held_back_for_ever(byte_level: Tokenizer) -> None:
    """A model that stammers stray bytes must not make each step dearer than the one before."""
    stray = next(token for token in range(4, 300) if byte_level.decode([token]) == "\ufffd")
    pieces = as_it_comes(byte_level, [], [stray] * 200)
    assert sum(map(bool, pieces[:-1])) > 10


@given(text=st.text(max_size=40))
@settings(max_examples=100)
@example("naïve 日本語 🐭\n\x00")
def test_the_bytes_of_the_tokens_are_the_text(byte_level: Tokenizer, fallback: Tokenizer, text: str) -> None:
    ids = byte_level.encode(text)
    assert b"".join(map(byte_level.token_bytes, ids)) == text.encode()
    ids = fallback.encode(text.replace("▁", " "))
    assert b"".join(map(fallback.token_bytes, ids)) == b" " * bool(text) + text.replace("▁", " ").encode()


def test_special_tokens_have_their_names_for_bytes_and_unknown_ids_none(
    byte_level: Tokenizer, fallback: Tokenizer
) -> None:
    assert byte_level.token_bytes(0) == b"<|end|>"
    assert fallback.token_bytes(2) == b"</s>"
    assert byte_level.token_bytes(10**6) == fallback.token_bytes(10**6) == b""


def test_a_token_is_spelt_as_in_the_vocabulary(byte_level: Tokenizer, fallback: Tokenizer) -> None:
    ids = byte_level.encode("é the", add_special_tokens=False)
    assert "".join(map(byte_level.token, ids)) == "Ã©Ġthe"
    assert [fallback.token(token) for token in fallback.encode("aé")] == ["▁", "a", "é"]
    assert (byte_level.token(0), fallback.token(3 + 0xE9)) == ("<|end|>", "<0xE9>")
    assert byte_level.token(10**6) == ""


def test_a_long_text_holds_up_no_other_thread(byte_level: Tokenizer) -> None:
    ticks, over = [0], threading.Event()

    def tick() -> None:
        while not over.wait(0.001):
            ticks[0] += 1

    text = "the dormouse sleeps " * 100_000
    ids = byte_level.encode(text)
    for work in (lambda: byte_level.encode(text), lambda: byte_level.decode(ids)):
        ticks[0] = 0
        over.clear()
        other = threading.Thread(target=tick)
        other.start()
        work()
        over.set()
        other.join()
        assert ticks[0] > 5
    assert byte_level.decode(ids) == text


def test_a_damaged_file_is_a_checkpoint_error(directory: Path) -> None:
    path = directory / "damaged.json"
    path.write_text("{}")
    with pytest.raises(CheckpointError) as caught:
        Tokenizer(path)
    assert str(directory) not in caught.value.reason


@given(
    text=st.text(st.sampled_from("abc"), max_size=30),
    stops=st.lists(st.text(st.sampled_from("abc"), min_size=1, max_size=4), max_size=3),
    cuts=st.lists(st.integers(0, 5), max_size=40),
)
@settings(max_examples=300)
def test_stop_strings_cut_at_the_first_wherever_the_pieces_break(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    matcher = StopMatcher(stops)
    ends = [text.find(stop) for stop in stops if stop in text]
    given_out, stopped, at = "", False, 0
    for cut in [*cuts, len(text)]:
        piece, at = text[at : at + cut], min(len(text), at + cut)
        certain, stopped = matcher.push(piece)
        given_out += certain
        if stopped:
            break
    given_out += matcher.flush()
    if not stopped:
        assert not ends
        assert given_out == text
    else:
        # The first that is complete ends the answer; one that began before it may not be whole yet.
        first = min((text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text)
        assert given_out in {text[:end] for end in ends}
        assert len(given_out) <= first[1]


def test_what_may_begin_a_stop_string_is_held_back_no_longer_than_it_may() -> None:
    matcher = StopMatcher(["STOP", "END"])
    pushed = [matcher.push(piece) for piece in ("aS", "T", "x", "EN", "D more")]
    assert pushed == [("a", False), ("", False), ("STx", False), ("", False), ("", True)]
    assert matcher.flush() == ""


def test_no_stop_strings_hold_nothing_back() -> None:
    assert StopMatcher(["", *()]).push("anything") == ("anything", False)


def test_a_part_of_a_text_keeps_the_special_tokens_around_it(tmp_path: Path) -> None:
    hub = HubTokenizer.from_str(make_tokenizer().backend_tokenizer.to_str())  # others share it
    hub.add_special_tokens(["<s>", "</s>"])
    first, last = hub.encode("<s></s>", add_special_tokens=False).ids
    hub.post_processor = processors.TemplateProcessing(
        "<s> $A </s>", special_tokens=[("<s>", first), ("</s>", last)]
    )
    hub.save(str(tmp_path / "framed.json"))
    tokenizer = Tokenizer(tmp_path / "framed.json")
    text = "A dormouse sleeps, and wakes."
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert len(ids) > 5
    assert tokenizer.encode_part(text, 5, "start") == [first, *ids[:3], last]
    assert tokenizer.encode_part(text, 5, "end") == [first, *ids[-3:], last]
    assert tokenizer.encode_part(text, 5, "end", add_special_tokens=False) == ids[-5:]
    assert tokenizer.encode_part(text, 500, "start") == [first, *ids, last]
    assert tokenizer.encode_part(text, 2, "start") == [first, last]
    assert len(tokenizer.encode_part(text, 1, "start")) == 1
