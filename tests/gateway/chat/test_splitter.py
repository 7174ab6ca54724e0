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
from gateway.chat.thinking import THINKING, thinking_of
from gateway.config import ReasoningParser, ToolParser

SCHEMAS = {
    "f": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}},
    "g": {"type": "object"},
    "h": {"type": "object", "properties": None},
    "o": {"properties": {"x": {"anyOf": [{"type": "string"}, {"type": "null"}]}, "y": True}},
}
WIDE = '{"a": 1, "b": "}</tool_call> \\" ü"}'


def call(name: str, arguments: str = "{}", *, whole: bool = True) -> list[Piece]:
    parts: list[Piece] = [CallArguments(arguments)] if arguments else []
    return [CallStart(name), *parts, *([CallEnd()] if whole else [])]


F = call("f", '{"a": 1}')
G = call("g")


def said(text: str) -> list[Piece]:
    return [Content(text)]


CASES: list[tuple[ToolParser, str, list[Piece]]] = [
    ("hermes", f'<tool_call>\n{{"name": "f", "arguments": {WIDE}}}\n</tool_call>', call("f", WIDE)),
    (
        "hermes",
        'Well.\n\n<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>\n'
        '<tool_call>{"arguments": {}, "name": "g"}</tool_call>\nDone.',
        [*said("Well."), *F, *G, *said("Done.")],
    ),
    ("hermes", '<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>', F),
    ("hermes", '<tool_call>[{"name": "f", "arguments": {"a": 1}}, {"name": "g"}]</tool_call>', [*F, *G]),
    ("hermes", '<tool_call>{"name": "f", "parameters": {"a": 1}', F),
    ("hermes", '<tool_call>{"id": 7, "type": "function", "name": "g"}</tool_call>', G),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": ', call("f", '{"a": ', whole=False)),
    ("hermes", '<tool_call>{"name": "f", "arg', call("f", "", whole=False)),
    ("hermes", "a <tool_call> is a mark", said("a <tool_call> is a mark")),
    ("hermes", '<tool_call>{"city": 1}', said('<tool_call>{"city": 1}')),
    ("hermes", '<tool_call>{"name": 3}', said('<tool_call>{"name": 3}')),
    ("hermes", "1 < 2 <tool", said("1 < 2 <tool")),
    ("hermes", " \n{} \n\n", said(" \n{} \n\n")),
    (
        "qwen3_coder",
        "Sure.\n<tool_call>\n<function=f>\n<parameter=a>\n1\n</parameter>\n<parameter=b>\n"
        'one\n"two" \\ <b>\n</parameter>\n</function>\n</tool_call>',
        [*said("Sure."), *call("f", '{"a": 1, "b": "one\\n\\"two\\" \\\\ <b>"}')],
    ),
    ("qwen3_coder", "<function=g></function> bye", [*G, *said("bye")]),
    ("qwen3_coder", '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>', F),
    (
        "qwen3_coder",
        "<tool_call><function=h><parameter=x>None</parameter><parameter=y>[1, 2]</parameter>"
        "<parameter=z>two words</parameter></function></tool_call>",
        call("h", '{"x": null, "y": [1, 2], "z": "two words"}'),
    ),
    ("qwen3_coder", "<function=f><parameter=b>ab", call("f", '{"b": "ab"', whole=False)),
    ("llama3_json", '{"name": "f", "parameters": {"a": 1}}', F),
    ("llama3_json", '<|python_tag|>{"name": "f", "parameters": {"a": 1}}; {"name": "g"}', [*F, *G]),
    (
        "llama3_json",
        'I see.\n<|python_tag|>{"name": "g", "parameters": {}}',
        [*said("I see."), *G],
    ),
    ("llama3_json", '{"city": "Ulm"} it is', said('{"city": "Ulm"} it is')),
    ("llama3_json", "<|python_tag|>import os", said("<|python_tag|>import os")),
    ("pythonic", "[f(a=1), g()]", [*F, *G]),
    (
        "pythonic",
        "[h(x=[1, (2)], y={'k': True}, z='a), b')]",
        call("h", '{"x": [1, 2], "y": {"k": true}, "z": "a), b"}'),
    ),
    ("llama4_pythonic", "<|python_start|>[f(a=1)]<|python_end|>", F),
    ("pythonic", "[1, 2] and [f](x)", said("[1, 2] and [f](x)")),
    ("pythonic", "[f(a=", call("f", "", whole=False)),
    ("llama3_json", '{"name": "Ada", "age": 36}', said('{"name": "Ada", "age": 36}')),
    ("pythonic", "[see(below)] for it", said("[see(below)] for it")),
    ("qwen3_coder", "<function=f><parameter=b>1</parameter></function>", call("f", '{"b": "1"}')),
    ("qwen3_coder", "Write <function=x> here", said("Write <function=x> here")),
    ("qwen3_coder", "Write <function=x", said("Write <function=x")),
    ("qwen3_coder", "<function=o><parameter=x>12</parameter></function>", call("o", '{"x": "12"}')),
    ("qwen3_coder", "<function=o><parameter=x>null</parameter></function>", call("o", '{"x": null}')),
    ("qwen3_coder", "<function=o><parameter=y>NaN</parameter></function>", call("o", '{"y": "NaN"}')),
    (
        "qwen3_coder",
        f"<function=o><parameter=y>{'[' * 3000}</parameter></function>",
        call("o", f'{{"y": "{"[" * 3000}"}}'),
    ),
    (
        "mistral",
        '[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}]',
        [*F, *G],
    ),
    ("mistral_args", '[TOOL_CALLS]f[CALL_ID]abc123def[ARGS]{"a": 1}[TOOL_CALLS]g[ARGS]{}', [*F, *G]),
    ("mistral_args", 'Yes.[TOOL_CALLS]f{"a": 1}', [*said("Yes."), *F]),
    ("mistral", "[TOOL_CALLS]?", said("[TOOL_CALLS]?")),
    (
        "granite",
        '<|tool_call|>[{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}]',
        [*F, *G],
    ),
    ("granite", '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>', F),
    (
        "deepseek_v3",
        "Ok.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n"
        '{"a": 1}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>g\n```json\n{}\n```'
        "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        [*said("Ok."), *F, *G],
    ),
    (
        "deepseek_v31",
        '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{"a": 1}<｜tool▁call▁end｜>'
        "<｜tool▁call▁begin｜>g<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        [*F, *G],
    ),
    (
        "openai",
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary to=functions.f "
        '<|constrain|>json<|message|>{"a": 1}',
        [Reasoning("Hm."), *F],
    ),
    ("openai", ' to=functions.f<|channel|>commentary json<|message|>{"a": 1}<|call|>', F),
    (
        "openai",
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary<|message|>I look."
        "<|end|><|start|>assistant<|channel|>final<|message|>Hi.<|return|>",
        [Reasoning("Hm."), *said("I look.Hi.")],
    ),
    ("openai", "plain", said("plain")),
]


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


@pytest.mark.parametrize("parser", ["hermes", "qwen3_coder", "mistral", "granite"])
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


@pytest.mark.parametrize(
    ("opened", "text"), [(True, "\nHm.\n</think>\n\nHi"), (False, "<think>Hm.</think>Hi")]
)
def test_reasoning_that_the_prompt_has_begun(opened: bool, text: str) -> None:
    style = AnswerStyle(thinking=THINKING["think"], opened=opened)
    assert split(style, list(text)) == [Reasoning("Hm."), Content("Hi")]
    assert split(style, ["Hm."]) == [Reasoning("Hm.") if opened else Content("Hm.")]
    assert split(style, ["I <think> so"]) == ([Reasoning("I <think> so")] if opened else said("I <think> so"))


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
        ("<tool_call>\n<function=example>", "qwen3_coder"),
        ('<tool_call>\n{"name": <function-name>', "hermes"),
        ("[TOOL_CALLS]' + name + '[ARGS]", "mistral_args"),
        ("[TOOL_CALLS][", "mistral"),
        ("<｜tool▁call▁begin｜>function<｜tool▁sep｜>' + name + '\\n```json", "deepseek_v3"),
        ("<｜tool▁call▁begin｜>' + name + '<｜tool▁sep｜>", "deepseek_v31"),
        ("<|tool_call|>", "granite"),
        ("<|python_tag|>", "llama3_json"),
        ("[func_name1(params_name1=params_value1", "pythonic"),
    ],
)
def test_a_template_shows_its_format(template: str, parser: ToolParser) -> None:
    assert shown_format(template) is FORMATS[parser]


def test_a_template_may_show_none() -> None:
    assert shown_format("{{ message.content }}") is None
    assert thinking_of("{{ message.content }}") is None
    assert thinking_of("{{ '<think>\\n\\n</think>' }}") is THINKING["think"]
    assert thinking_of("[THINK]{{ x }}[/THINK]") is THINKING["mistral"]


def test_every_name_of_the_configuration_is_known() -> None:
    assert FORMATS.keys() == set(get_args(ToolParser))
    assert THINKING.keys() == set(get_args(ReasoningParser))
