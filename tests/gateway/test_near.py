"""Misspelt words find the one that was meant."""

from __future__ import annotations

import time

import pytest

from gateway.near import nearest

KNOWN = ("demo-a", "demo-b", "Qwen/Qwen3-8B", "meta-llama/Llama-3.1-8B-Instruct")


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("demo-x", "demo-a"),  # as near as another: the first
        ("demob", "demo-b"),
        ("DEMO-B", "demo-b"),
        ("qwen3-8b", "Qwen/Qwen3-8B"),
        ("qwen/qwen-8b", "Qwen/Qwen3-8B"),
        ("llama-3.1-8b-instruct", "meta-llama/Llama-3.1-8B-Instruct"),
        ("gpt-4o", None),
        ("", None),
    ],
)
def test_the_nearest_is_named_or_none(word: str, meant: str | None) -> None:
    assert nearest(word, KNOWN) == meant


def test_a_hostile_word_among_many_costs_little() -> None:
    began = time.process_time()
    nearest("ab" * 10_000_000, ["ab" * 10_000] * 1000)
    nearest("ab" * 32, ["ba" * 10_000 + str(n) for n in range(10_000)])
    assert time.process_time() - began < 2


def test_nothing_known_is_nothing_meant() -> None:
    assert nearest("demo", ()) is None
