"""Words that come in pieces stay whole."""

from __future__ import annotations

import textwrap

from hypothesis import given
from hypothesis import strategies as st

from gateway.commands.word_wrap import WordWrap


def wrapped(*pieces: str, width: int = 10) -> str:
    wrap = WordWrap(width)
    return "".join([*map(wrap.feed, pieces), wrap.flush()])


def test_a_word_that_does_not_fit_begins_a_line() -> None:
    assert wrapped("one two th", "ree fo", "ur") == "one two\nthree four"
    assert wrapped("averyverylongword and") == "averyverylongword\nand"
    assert wrapped("  two  spaces", width=80) == "  two  spaces"
    assert wrapped("寿限無 寿限無") == "寿限無\n寿限無", "six cells each"


def test_code_is_not_touched() -> None:
    text = "```python\nprint('a line that is longer than ten')\n```\nand on it goes"
    assert wrapped(text) == "```python\nprint('a line that is longer than ten')\n```\nand on it\ngoes"


def test_what_is_whole_is_shown_at_once() -> None:
    wrap = WordWrap(80)
    assert wrap.feed("one tw") == "one"
    assert wrap.feed("o\n") == " two\n"
    assert wrap.feed("three") == ""
    assert wrap.flush() == "three"


@given(st.lists(st.text("abc \n", max_size=6)), st.integers(1, 30))
def test_pieces_make_no_difference_and_no_word_is_lost(pieces: list[str], width: int) -> None:
    text = "".join(pieces)
    assert wrapped(*pieces, width=width) == wrapped(text, width=width)
    assert wrapped(text, width=width).split() == text.split()
    words = " ".join(text.split())
    expected = textwrap.fill(words, width, break_long_words=False, break_on_hyphens=False)
    assert wrapped(words, width=width) == expected
