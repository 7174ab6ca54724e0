"""Expressions that are taken apart or turned round match what they did, by Python's own reader."""

from __future__ import annotations

import re
from itertools import product

import pytest

from gateway.chat.schemas.lookahead import conjuncts
from gateway.chat.schemas.negation import other_texts
from gateway.chat.schemas.patterns import ANY, readable

TEXTS = ["".join(chars) for size in range(6) for chars in product("a1.-", repeat=size)]


@pytest.mark.parametrize(
    "pattern",
    [
        r"^(?!\.)(?!.*\.\.)[a.]+$",
        r"^(?=.*1)(?=.*a)[a1-]{2,4}$",
        r"^(?!a)(?:a|1)",
        r"^(?=[(a)]1)a.$",
        r"^(?!.*--)",
        r"^(?=a(?:1|\.))a",
        r"a\.|1",
    ],
)
def test_looking_ahead_is_taken_apart(pattern: str) -> None:
    parts = conjuncts(pattern)
    assert not any("(?=" in part or "(?!" in part for part in parts)
    for text in TEXTS:
        assert all(re.search(part, text) for part in parts) == bool(re.search(pattern, text)), text


@pytest.mark.parametrize("texts", [{"a"}, {""}, {"a", "a1", "1"}, {"", "-", ".-", "--"}])
def test_all_texts_but_some(texts: set[str]) -> None:
    others = re.compile(other_texts(texts).replace(ANY, r"[\s\S]"))
    for text in TEXTS:
        assert bool(others.fullmatch(text)) == (text not in texts), text


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (r"\s\S.", r"[ \t\n\r\f\v][^\s\x{FEFF}][^\n\r\x{2028}\x{2029}]"),
        (r"[\s.][^\s.]", r"[ \t\n\r\f\v.][^\s\x{FEFF}.]"),
        (r"\\s\.[]]\[.", r"\\s\.[]]\[[^\n\r\x{2028}\x{2029}]"),
        (r"\D[\D_]", r"[\x{20}-\x{2F}\x{3A}-\x{7E}][\x{20}-\x{2F}\x{3A}-\x{7E}_]"),
        (r"[^\w-][^\d]", r"[^\w\x{80}-\x{10FFFF}-][^\d\x{80}-\x{10FFFF}]"),
        (r"[[:alpha:]]{3}", r"[\[:alpha:]]{3}"),
        (r"[[]a&&b", r"[\[]a&&b"),
        (r"[a&&b~~c]", r"[a\&&b\~~c]"),
    ],
)
def test_spaces_and_ends_of_lines_are_those_of_all_readers(pattern: str, expected: str) -> None:
    assert readable(pattern, "#") == [expected]
