"""Each way of writing calls and reasoning, wherever the engine cuts the text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.chat.formats.known import FORMATS, shown_format
from gateway.chat.pieces import CallArguments, CallEnd, CallStart, Content, Piece, Reasoning
from gateway.chat.splitter import AnswerStyle, Splitter
from gateway.chat.thinking import THINKING
from gateway.config import ReasoningParser, ToolParser
from tests.gateway.chat.answers import CASES, SCHEMAS, call


def joined(pieces: Iterable[Piece]) -> list[Piece]:
    """Neighbours of one kind made one."""
    found: list[Piece] = []
    for piece in pieces:
        last = found[-1] if found else None
        match last, piece:
            case (Content(a), Content(b)):
                found[-1] = Content(a + b)
            case (Reasoning(a), Reasoning(b)):
                found[-1] = Reasoning(a + b)
            case (CallArguments(a), CallArguments(b)):
                found[-1] = CallArguments(a + b)
            case _:
                found.append(piece)
    return found


def split(style: AnswerStyle, parts: Sequence[str]) -> list[Piece]:
    splitter = Splitter(style)
    pieces = [piece for part in parts for piece in splitter.push(part, 1)]
    return joined([*pieces, *splitter.end()])


def cut(text: str, cuts: Iterable[int]) -> list[str]:
    places = sorted({0, len(text), *(place % (len(text) + 1) for place in cuts)})
    return [text[a:b] for a, b in pairwise(places)]


@pytest.mark.parametrize(("parser", "text", "pieces"), CASES)
def test_every_format(parser: ToolParser, text: str, pieces: list[Piece]) -> None:
    style = AnswerStyle(tools=FORMATS[parser], schemas=SCHEMAS)
    assert split(style, [text]) == pieces
    assert split(style, list(text)) == pieces
    thinks = AnswerStyle(thinking=THINKING["think"], tools=FORMATS[parser], schemas=SCHEMAS)
    if parser != "openai":
        thought = f"<think>\nWhat < is </this?\n</think>\n\n{text}"
        assert split(thinks, list(thought)) == joined(
            [Reasoning("What < is </this?"), *said_after(pieces, text)]
        )


def said_after(pieces: list[Piece], text: str) -> list[Piece]:
    """The space between reasoning and content goes."""
    first = pieces[0]
    return [Content(first.text.lstrip()), *pieces[1:]] if isinstance(first, Content) else pieces


@given(st.sampled_from(CASES), st.lists(st.integers(0, 10_000), max_size=12))
def test_where_it_is_cut_makes_no_difference(
    case: tuple[ToolParser, str, list[Piece]], cuts: list[int]
) -> None:
    parser, text, pieces = case
    assert split(AnswerStyle(tools=FORMATS[parser], schemas=SCHEMAS), cut(text, cuts)) == pieces


MARKS = st.sampled_from(sorted({mark for found in FORMATS.values() for mark in found.marks}))
JUNK = st.lists(
    st.one_of(
        MARKS,
        st.sampled_from(
            [*'{}[]()":,=;<>\n ', "name", '"name"', "arguments", "<function=", "<parameter=", "f("]
        ),
        st.text(max_size=4),
    ),
    max_size=20,
).map("".join)


@given(st.sampled_from(sorted(FORMATS)), JUNK, st.lists(st.integers(0, 10_000), max_size=12))
def test_any_text_ends_the_same_however_it_is_cut(parser: ToolParser, text: str, cuts: list[int]) -> None:
    style = AnswerStyle(tools=FORMATS[parser], schemas=SCHEMAS)
    pieces = split(style, [text])
    assert split(style, cut(text, cuts)) == pieces
    begun = False
    for piece in pieces:
        if isinstance(piece, CallStart):
            assert piece.name
        if isinstance(piece, CallArguments | CallEnd):
            assert begun, "arguments of no call"
        begun = begun or isinstance(piece, CallStart)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="<[{|")))
def test_text_without_a_mark_is_content_as_it_is(text: str) -> None:
    for parser in ("hermes", "llama3_json", "mistral", "deepseek_v3"):
        pieces = split(AnswerStyle(tools=FORMATS[parser]), list(text))
        assert pieces == ([Content(text)] if text else [])


ARGUMENTS = st.dictionaries(
    st.text(max_size=5),
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5),
)


@given(ARGUMENTS)
def test_arguments_come_through_as_they_were_written(arguments: dict[str, Any]) -> None:
    text = json.dumps(arguments)
    for layout in ("hermes", "mistral", "granite"):
        written = FORMATS[layout].layout
        answer = (
            f"{written.before}{written.opening.replace('$NAME', 'f')}{text}{written.closing}{written.after}"
        )
        pieces = split(AnswerStyle(tools=FORMATS[layout]), list(answer))
        assert pieces == call("f", text)


@pytest.mark.parametrize(
    "parser", ["hermes", "qwen3_coder", "seed_oss", "mistral", "granite", "phi4_mini_json"]
)
def test_of_a_call_cut_off_anywhere_nothing_is_content(parser: ToolParser) -> None:
    layout = FORMATS[parser].layout
    answer = layout.before + layout.opening.replace("$NAME", "f") + '{"a": 1}' + layout.closing + layout.after
    marks = max(len(mark) for mark in FORMATS[parser].marks if answer.startswith(mark))
    for end in range(marks, len(answer) + 1):
        splitter = Splitter(AnswerStyle(tools=FORMATS[parser]))
        pieces = [*splitter.push(answer[:end], 1), *splitter.end(cut=True)]
        assert not [piece for piece in pieces if isinstance(piece, Content)], answer[:end]


def test_arguments_are_given_out_as_they_come() -> None:
    splitter = Splitter(AnswerStyle(tools=FORMATS["hermes"]))
    given_out = [
        splitter.push(part, 1) for part in ('<tool_call>{"name": "f", "arguments": {"a', '": ', '"b')
    ]
    assert given_out == [
        [CallStart("f"), CallArguments('{"a')],
        [CallArguments('": ')],
        [CallArguments('"b')],
    ]


def test_tokens_of_the_reasoning_are_counted() -> None:
    splitter = Splitter(AnswerStyle(thinking=THINKING["think"], opened=True))
    for part in ("Hm", ".", "</think>", "\n\n"):
        splitter.push(part, 1)
    assert splitter.reasoning_tokens == 4
    splitter.push("Hi", 2)
    assert splitter.reasoning_tokens == 4


@pytest.mark.parametrize(
    ("template", "parser"),
    [
        ("<|channel|>analysis", "openai"),
        ("<tool_call>\n<function=example>\n<parameter=x>", "qwen3_coder"),
        ("<function=example>{{ x | tojson }}</function>", "functionary"),
        ("<TOOLCALL>[", "nemotron_json"),
        ("<tool_call>{{ name }}<arg_key>", "glm45"),
        ("<tool_calls>[{", "apriel"),
        ('<tool_call>\n{"name": <function-name>', "hermes"),
        ("[TOOL_CALLS]' + name + '[ARGS]", "mistral_args"),
        ("[TOOL_CALLS][", "mistral"),
        ("<｜tool▁call▁begin｜>function<｜tool▁sep｜>' + name + '\\n```json", "deepseek_v3"),
        ("<｜tool▁call▁begin｜>' + name + '<｜tool▁sep｜>", "deepseek_v31"),
        ("<|tool_call|>", "granite"),
        ("<|tool|>", "phi4_mini_json"),
        (" functools[", "firefunction"),
        ("<seed:tool_call>\n<function=x>\n<parameter=y>", "seed_oss"),
        ("'｜DSML｜'; '<' + dsml + 'function_calls>'", "deepseek_v32"),
        ("'｜DSML｜'; '<' + dsml + 'tool_calls>'", "deepseek_v4"),
        ("<|python_tag|>", "llama3_json"),
        ("<|start_header_id|>ipython<|end_header_id|>", "llama3_json"),
        ("[func_name1(params_name1=params_value1", "pythonic"),
        ("[func_name1(param1=value1)]", "llama4_pythonic"),
        ("<|header_start|>ipython<|header_end|>", "llama4_json"),
    ],
)
def test_a_template_shows_its_format(template: str, parser: ToolParser) -> None:
    assert shown_format(template) is FORMATS[parser]


def test_a_template_may_show_none() -> None:
    assert shown_format("{{ message.content }}") is None


def test_every_name_of_the_configuration_is_known() -> None:
    assert FORMATS.keys() == set(get_args(ToolParser))
    assert THINKING.keys() == set(get_args(ReasoningParser))
