"""Tokenizers of the demo models, and chats packed into rows of tokens with a weight for each token."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from .data import Message, conversations
from .data.sums import TENS, UNITS
from .families import CONTEXT, Family

VOCABULARY = 704
NUMBER_TEXTS = [f"{blank}{number}" for number in (*range(41), *UNITS, *TENS) for blank in ("", " ")]
NUMBER_COPIES = 3000
NUMBER = Regex(r" ?\p{N}{1,2}")
TOKENIZER_CHATS = 6000
QUESTION_WEIGHT = 0.1


def train_tokenizer(family: Family) -> Tokenizer:
    """A small byte-level BPE that keeps numbers of one or two digits in pieces of their own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(NUMBER, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in family.special_tokens],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    chats = islice(conversations(family.seed), TOKENIZER_CHATS)
    contents = [message["content"] for chat in chats for message in chat]
    tokenizer.train_from_iterator(contents + NUMBER_TEXTS * NUMBER_COPIES, trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, family: Family, directory: Path) -> None:
    """Writes tokenizer.json and tokenizer_config.json."""
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": family.bos,
        "eos_token": family.end_of_turn,
        "pad_token": family.pad,
        "model_max_length": CONTEXT,
        "clean_up_tokenization_spaces": False,
        "chat_template": family.chat_template,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def weighted_tokens(chat: list[Message], family: Family, tokenizer: Tokenizer) -> Iterator[tuple[int, float]]:
    """The tokens of a chat; those of answers count fully, those of questions little, the others nothing."""
    yield from ((token, 0.0) for token in tokenizer.encode(family.opening).ids)
    for message in chat:
        answer = message["role"] == "assistant"
        header = tokenizer.encode(family.header.format(role=message["role"])).ids
        content = tokenizer.encode(message["content"].strip()).ids
        end, *rest = tokenizer.encode(family.footer).ids
        yield from ((token, 0.0) for token in header)
        yield from ((token, 1.0 if answer else QUESTION_WEIGHT) for token in content)
        yield (end, 1.0 if answer else 0.0)
        yield from ((token, 0.0) for token in rest)


def batches(
    family: Family, tokenizer: Tokenizer, rows: int, length: int, seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless batches of tokens and weights; every row begins with a new chat and cuts off its last one."""
    chats = conversations(seed)
    while True:
        packed = []
        for _ in range(rows):
            row: list[tuple[int, float]] = []
            while len(row) <= length:
                row.extend(weighted_tokens(next(chats), family, tokenizer))
            packed.append(row[: length + 1])
        both = torch.tensor(packed, dtype=torch.float64)
        yield both[..., 0].long(), both[..., 1].float()
