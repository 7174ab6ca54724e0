"""Answers that must be calls, by real grammars: any walk through one is read back as calls that are valid."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import jsonschema_rs
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

FUNCTIONS: dict[str, dict[str, Any]] = {
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
    "squeak": {
        "properties": {
            "what": {"type": "string", "description": "Any text."},
            "to": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "how": {"$ref": "#/$defs/how"},
        },
        "required": ["what", "how"],
        "$defs": {"how": {"enum": ["loudly", 3, None]}},
    },
    "dig": {"type": "object", "properties": {"word": {"type": "string", "pattern": "^[a-z]{1,3}$"}}},
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
PIECES = ("</", "</parameter>\n")
"""Other long tokens."""
END = 256
SEEDS = range(14)


@cache
def tokenizer_json(special: bool) -> str:
    """The bytes, an end, and the marks as special tokens or as others."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = tokenizers.Tokenizer(models.BPE({char: at for at, char in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<|endoftext|>"])
    made.add_tokens([tokenizers.AddedToken(mark, special=special, normalized=False) for mark in MARKS])
    made.add_tokens([tokenizers.AddedToken(piece, normalized=False) for piece in PIECES])
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
    """A random answer. The end of a free text is one token of many, so these come as often as all else."""
    compiler, tokenizer, _ = tools(special)
    compiled = compiler.compile(constraint)
    assert isinstance(compiled, CompiledGrammar)
    matcher, choose, tokens = compiled.matcher(), random.Random(seed), []
    quote = vocabulary(special)['"']
    while not matcher.finished:
        assert len(tokens) < 3000, "no end"
        mask = np.frombuffer(matcher.state.compute_bitmask(), np.uint8)
        allowed = np.flatnonzero(np.unpackbits(mask, bitorder="little")).tolist()
        marks = [token for token in allowed if token >= END or token == quote]
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
    called = calls_of(pieces)
    assert len(called) == sum(isinstance(piece, CallEnd) for piece in pieces) >= 1
    assert not [piece for piece in pieces if isinstance(piece, Content)]
    assert most is None or len(called) <= most
    for name, arguments in called:
        given = json.loads(arguments)
        assert given.keys() <= FUNCTIONS[name]["properties"].keys()
        assert jsonschema_rs.is_valid({"type": "object", **FUNCTIONS[name]}, given), (name, given)


def calls_of(pieces: Sequence[Piece]) -> list[tuple[str, str]]:
    """Names and arguments."""
    found: list[tuple[str, str]] = []
    for piece in pieces:
        if isinstance(piece, CallStart):
            found.append((piece.name, ""))
        if isinstance(piece, CallArguments):
            name, arguments = found.pop()
            found.append((name, arguments + piece.text))
    return found


EVERY_FORMAT = pytest.mark.parametrize("parser", sorted(FORMATS))
SPECIAL_OR_NOT = pytest.mark.parametrize("special", [False, True])


@EVERY_FORMAT
@SPECIAL_OR_NOT
@pytest.mark.parametrize("several", [False, True])
def test_calls(parser: ToolParser, special: bool, several: bool) -> None:
    found, writer = FORMATS[parser], tools(special)[2]
    grammar = writer.frame(body=["calls"], thinking=None, opened=False, content=found.content)
    grammar += writer.calls(found.layout, FUNCTIONS, most=16 if several else 1)
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
    frame += writer.calls(found.layout, FUNCTIONS, most=16)
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


TEXT_AND_CALLS = (
    "hermes",
    "qwen3_coder",
    "mistral",
    "mistral_args",
    "granite",
    "deepseek_v31",
    "phi4_mini_json",
)


@pytest.mark.parametrize("parser", TEXT_AND_CALLS)
@pytest.mark.parametrize("opened", [None, False, True])
def test_any_text_with_calls_that_are_valid(parser: ToolParser, opened: bool | None) -> None:
    found, writer = FORMATS[parser], tools(special=True)[2]
    thinking = None if opened is None else THINKING["think"]
    grammar = writer.frame(body=["text_and_calls"], thinking=thinking, opened=bool(opened))
    grammar += writer.text_and_calls(several=False) + writer.calls(found.layout, FUNCTIONS, most=1)
    style = AnswerStyle(thinking=thinking, opened=bool(opened), tools=found, schemas=FUNCTIONS)
    assert writer.begins_with_token(found.layout.start)
    numbers = []
    for seed in SEEDS[:10]:
        text = walk(Constraint(kind="grammar", value=grammar), True, seed)
        pieces = [piece for piece in read(style, text) if not isinstance(piece, Content | Reasoning)]
        numbers.append(sum(isinstance(piece, CallStart) for piece in pieces))
        assert numbers[-1] == 0 or not check_calls(pieces, most=1)
    assert {0, 1} == set(numbers)


def style_of(found: ToolFormat, opened: bool) -> AnswerStyle:
    if found.thinking:
        return AnswerStyle(tools=found, schemas=FUNCTIONS)
    return AnswerStyle(thinking=THINKING["think"], opened=opened, tools=found, schemas=FUNCTIONS)
