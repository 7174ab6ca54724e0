"""Answers that must be calls, by real grammars: any walk through one is read back as calls that are valid."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import pytest
import tokenizers
from llguidance import LLTokenizer
from tokenizers import decoders, models, pre_tokenizers

from engine import Constraint
from engine.grammar import CompiledGrammar, GrammarCompiler
from gateway.chat.forced import LarkWriter
from gateway.chat.formats.known import FORMATS
from gateway.chat.formats.tool_format import ToolFormat
from gateway.chat.pieces import CallArguments, CallEnd, CallStart, Content, Piece, Reasoning
from gateway.chat.splitter import AnswerStyle, Splitter
from gateway.chat.thinking import THINKING
from gateway.config import ToolParser

FUNCTIONS = {
    "find.mice": {
        "type": "object",
        "properties": {
            "where": {"enum": ["barn", "field"]},
            "count": {"type": "integer", "minimum": 0, "maximum": 99},
            "names": {"type": "array", "items": {"type": "string", "maxLength": 3}, "maxItems": 2},
        },
        "required": ["where"],
    },
    "sleep": {"type": "object", "properties": {}},
}
BODY = json.dumps(
    {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
        "additionalProperties": False,
    }
)
MARKS = sorted({mark for found in FORMATS.values() for mark in found.marks} | {"<think>", "</think>"})
END = 256
SEEDS = range(30)


@cache
def tokenizer_json(special: bool) -> str:
    """The bytes, an end, and the marks as special tokens or as others."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = tokenizers.Tokenizer(models.BPE({char: at for at, char in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<|endoftext|>"])
    made.add_tokens([tokenizers.AddedToken(mark, special=special, normalized=False) for mark in MARKS])
    return made.to_str()


@cache
def vocabulary(special: bool) -> Mapping[str, int]:
    return tokenizers.Tokenizer.from_str(tokenizer_json(special)).get_vocab()


@cache
def tools(special: bool) -> tuple[GrammarCompiler, LLTokenizer, LarkWriter]:
    ids = vocabulary(special)
    compiler = GrammarCompiler(lambda: tokenizer_json(special), len(ids), frozenset({END}))
    writer = LarkWriter({mark: ids[mark] for mark in MARKS})
    return compiler, LLTokenizer(tokenizer_json(special), n_vocab=len(ids), eos_token=[END]), writer


def walk(constraint: Constraint, special: bool, seed: int) -> str:
    """A random answer. The end of a free text is one token of many, so marks come as often as all else."""
    compiler, tokenizer, _ = tools(special)
    compiled = compiler.compile(constraint)
    assert isinstance(compiled, CompiledGrammar)
    matcher, choose, tokens = compiled.matcher(), random.Random(seed), []
    while not matcher.finished:
        assert len(tokens) < 3000, "no end"
        mask = np.frombuffer(matcher.state.compute_bitmask(), np.uint8)
        allowed = np.flatnonzero(np.unpackbits(mask, bitorder="little")).tolist()
        marks = [token for token in allowed if token > END]
        token = choose.choice(marks if marks and choose.random() < 0.5 else allowed)
        if token == END:
            break
        matcher.consume(token)
        tokens.append(token)
    return str(tokenizer.decode_str(tokens))


def read(style: AnswerStyle, text: str) -> list[Piece]:
    splitter = Splitter(style)
    return [*splitter.push(text, 1), *splitter.end()]


def check_calls(pieces: Sequence[Piece], *, most: int | None = None) -> None:
    """They are one call or more, with arguments as their schema has them, and nothing else."""
    names = [piece.name for piece in pieces if isinstance(piece, CallStart)]
    arguments = [json.loads(piece.text) for piece in pieces if isinstance(piece, CallArguments)]
    assert len(names) == len(arguments) == sum(isinstance(piece, CallEnd) for piece in pieces) >= 1
    assert not [piece for piece in pieces if isinstance(piece, Content)]
    assert most is None or len(names) <= most
    for name, given in zip(names, arguments, strict=True):
        assert given.keys() <= FUNCTIONS[name]["properties"].keys()
        if name == "find.mice":
            assert given["where"] in ("barn", "field")
            assert 0 <= given.get("count", 0) <= 99
            assert all(len(mouse) <= 3 for mouse in given.get("names", []))


EVERY_FORMAT = pytest.mark.parametrize("parser", sorted(FORMATS))
SPECIAL_OR_NOT = pytest.mark.parametrize("special", [False, True])


@EVERY_FORMAT
@SPECIAL_OR_NOT
@pytest.mark.parametrize("several", [False, True])
def test_calls(parser: ToolParser, special: bool, several: bool) -> None:
    found, writer = FORMATS[parser], tools(special)[2]
    grammar = writer.frame(body=["calls"], thinking=None, opened=False, content=found.content)
    grammar += writer.calls(found.layout, FUNCTIONS, several=several)
    numbers = set()
    for seed in SEEDS:
        text = walk(Constraint(kind="grammar", value=grammar), special, seed)
        pieces = read(AnswerStyle(tools=found, schemas=FUNCTIONS), text)
        check_calls(pieces, most=None if several else 1)
        numbers.add(sum(isinstance(piece, CallEnd) for piece in pieces))
    assert not several or found.layout.between is None or len(numbers) > 1


@EVERY_FORMAT
@SPECIAL_OR_NOT
@pytest.mark.parametrize("opened", [False, True])
def test_after_the_reasoning_a_call_or_the_form(parser: ToolParser, special: bool, opened: bool) -> None:
    found, writer = FORMATS[parser], tools(special)[2]
    thinking = found.thinking or THINKING["think"]
    assert thinking
    frame = writer.frame(body=["calls", "@body"], thinking=thinking, opened=opened, content=found.content)
    frame += writer.calls(found.layout, FUNCTIONS, several=True)
    constraint = Constraint(kind="json_schema", value=BODY, frame=frame)
    style = style_of(found, opened)
    kinds: set[type] = set()
    for seed in SEEDS:
        text = walk(constraint, special, seed)
        begun = f"{thinking.opening}{text}" if opened and found.thinking else text
        pieces = [piece for piece in read(style, begun) if not isinstance(piece, Reasoning)]
        kinds |= {type(piece) for piece in pieces}
        if any(isinstance(piece, CallStart) for piece in pieces):
            check_calls(pieces)
        else:
            assert json.loads("".join(piece.text for piece in pieces if isinstance(piece, Content))) in (
                {"ok": True},
                {"ok": False},
            )
    assert {CallStart, Content} <= kinds


def style_of(found: ToolFormat, opened: bool) -> AnswerStyle:
    if found.thinking:
        return AnswerStyle(tools=found, schemas=FUNCTIONS)
    return AnswerStyle(thinking=THINKING["think"], opened=opened, tools=found, schemas=FUNCTIONS)
