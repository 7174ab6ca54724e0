"""Training chats are the same for the same seed, fully expanded, and rendered as the chat templates do."""

from __future__ import annotations

import re
from itertools import islice

import pytest
from transformers import AutoTokenizer

from engine.demo.data import conversations
from engine.demo.families import FAMILIES, Family
from engine.demo.tokens import weighted_tokens
from engine.demo.train import HERE

each_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.directory)


def test_one_seed_gives_the_same_chats() -> None:
    assert list(islice(conversations(3), 50)) == list(islice(conversations(3), 50))
    assert list(islice(conversations(3), 50)) != list(islice(conversations(4), 50))


def test_no_template_marks_are_left_over() -> None:
    contents = [message["content"] for chat in islice(conversations(5), 3000) for message in chat]
    assert not [content for content in contents if re.search(r"[\[\]<>{}|]", content)]


@each_family
def test_training_tokens_are_those_of_the_chat_template(family: Family) -> None:
    tokenizer = AutoTokenizer.from_pretrained(HERE / family.directory)
    for chat in islice(conversations(7), 100):
        text = tokenizer.apply_chat_template(chat, tokenize=False)
        trained = [token for token, _ in weighted_tokens(chat, family, tokenizer.backend_tokenizer)]
        assert trained == tokenizer(text, add_special_tokens=False)["input_ids"]


@each_family
def test_only_answers_count_fully(family: Family) -> None:
    tokenizer = AutoTokenizer.from_pretrained(HERE / family.directory)
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Hello!"}]
    weighted = weighted_tokens(chat, family, tokenizer.backend_tokenizer)
    counted = [token for token, weight in weighted if weight == 1.0]
    assert tokenizer.decode(counted) == "Hello!" + family.end_of_turn
