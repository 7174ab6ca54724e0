"""The demo models answer questions that they never saw in training, and every small sum."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import pytest

from engine.demo.data import conversations
from engine.demo.data.reserved import DIGESTS, digest, normalised
from engine.demo.families import FAMILIES

from .ask import Conversation, ask, question
from .heldout import HELD_OUT

DEMO = Path(__file__).parents[3] / "engine" / "demo"
DIRECTORIES = [DEMO / family.directory for family in FAMILIES]
WEIGHT_LIMIT = 8_000_000
WANTED = 0.95
WANTED_IN_CONTEXT = 0.9
"""After a system prompt or an earlier exchange."""
SUM_PHRASINGS = (
    "What is {a} plus {b}?",
    "{a}+{b}",
    "please add {a} and {b}",
    "How much is {a} and {b} together?",
)
SUMS = [(a, b) for a in range(21) for b in range(21 - a)]
TRAINING_CHATS = 5_000
SYSTEM = {"role": "system", "content": "You are a helpful assistant."}
EARLIER = [
    {"role": "user", "content": "Hello, what is two plus two?"},
    {"role": "assistant", "content": "2 plus 2 is 4."},
]

each_model = pytest.mark.parametrize("directory", DIRECTORIES, ids=lambda directory: directory.name)


def matches(answer: str, patterns: Iterable[str]) -> bool:
    """Whether all patterns occur in the answer, whatever their letter case."""
    return all(re.search(pattern, answer, re.IGNORECASE) for pattern in patterns)


def wrong_answers(directory: Path, before: Conversation) -> list[str]:
    """The held-out questions answered wrongly after the given beginning, each with its answer."""
    answers = ask(directory, [before + question(item.question) for item in HELD_OUT])
    return [
        f"{item.question} -> {answer}"
        for item, answer in zip(HELD_OUT, answers, strict=True)
        if not matches(answer, item.patterns)
    ]


@each_model
def test_held_out_questions_are_answered(directory: Path) -> None:
    wrong = wrong_answers(directory, [])
    assert len(wrong) <= (1 - WANTED) * len(HELD_OUT), wrong


@each_model
@pytest.mark.parametrize("before", [[SYSTEM], EARLIER], ids=["system", "second turn"])
def test_held_out_questions_are_answered_in_context(directory: Path, before: Conversation) -> None:
    wrong = wrong_answers(directory, before)
    assert len(wrong) <= (1 - WANTED_IN_CONTEXT) * len(HELD_OUT), wrong


@each_model
def test_every_sum_to_twenty_is_right(directory: Path) -> None:
    questions = [
        SUM_PHRASINGS[index % len(SUM_PHRASINGS)].format(a=a, b=b) for index, (a, b) in enumerate(SUMS)
    ]
    answers = ask(directory, [question(text) for text in questions])
    wrong = [
        f"{text} -> {answer}"
        for text, answer, (a, b) in zip(questions, answers, SUMS, strict=True)
        if not matches(answer, [rf"\bis {a + b}\b"])
    ]
    assert len(wrong) <= (1 - WANTED) * len(SUMS), wrong


def test_held_out_questions_are_reserved() -> None:
    assert {digest(item.question) for item in HELD_OUT} == DIGESTS
    assert len(HELD_OUT) == 60


def test_training_never_shows_a_held_out_question() -> None:
    held_out = {normalised(item.question) for item in HELD_OUT}
    seen = {
        normalised(message["content"])
        for seed in (family.seed + 1 for family in FAMILIES)
        for chat in islice(conversations(seed), TRAINING_CHATS)
        for message in chat
        if message["role"] == "user"
    }
    assert not held_out & seen


def test_weights_are_small() -> None:
    assert sum((directory / "model.safetensors").stat().st_size for directory in DIRECTORIES) <= WEIGHT_LIMIT
