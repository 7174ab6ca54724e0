"""Reasoning told apart: by each family's marks, and where the prompt has begun it."""

from __future__ import annotations

import pytest

from gateway.chat.formats.known import FORMATS
from gateway.chat.pieces import CallArguments, CallEnd, CallStart, Content, Piece, Reasoning
from gateway.chat.splitter import AnswerStyle, Splitter
from gateway.chat.thinking import THINKING, Thinking, thinking_of
from tests.gateway.chat.test_splitter import split

THINK = Thinking("<think>", "</think>")
THOUGHT_AND_ANSWER = [Reasoning("Hm."), Content("Hi")]


@pytest.mark.parametrize(
    ("opened", "text"), [(True, "\nHm.\n</think>\n\nHi"), (False, "<think>Hm.</think>Hi")]
)
def test_reasoning_that_the_prompt_has_begun(opened: bool, text: str) -> None:
    style = AnswerStyle(thinking=THINK, opened=opened)
    assert split(style, list(text)) == THOUGHT_AND_ANSWER
    assert split(style, ["Hm."]) == [Reasoning("Hm.") if opened else Content("Hm.")]
    assert split(style, ["I <think> so"]) == [(Reasoning if opened else Content)("I <think> so")]


def test_a_mark_that_the_prompt_has_already_is_none_of_the_reasoning() -> None:
    style = AnswerStyle(thinking=THINK, opened=True)
    assert split(style, list("\n<think>\nHm.</think>Hi")) == THOUGHT_AND_ANSWER
    assert split(style, ["<thin"]) == [Reasoning("<thin")]


def test_reasoning_that_goes_on_keeps_its_space() -> None:
    style = AnswerStyle(thinking=THINK, opened=True, continued=True)
    assert split(style, list(" Hm.</think>Hi")) == [Reasoning(" Hm."), Content("Hi")]


CALL = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
CALLED: list[Piece] = [CallStart("f"), CallArguments("{}"), CallEnd()]


@pytest.mark.parametrize("opened", [True, False])
def test_a_call_of_a_model_that_has_forgotten_to_end_its_reasoning(opened: bool) -> None:
    style = AnswerStyle(thinking=THINK, opened=opened, tools=FORMATS["hermes"], schemas={"f": {}})
    begun = "" if opened else "<think>"
    for parts in ([f"{begun}Hm. {CALL}"], list(f"{begun}Hm. {CALL}")):
        assert split(style, parts) == [Reasoning(f"Hm. {CALL}"), *CALLED]
    other = CALL.replace('"f"', '"g"')
    assert split(style, [f"{begun}A <tool_call>? {other}{CALL}"]) == [
        Reasoning(f"A <tool_call>? {other}{CALL}"),
        *CALLED,
    ]
    assert split(style, [f"{begun}{CALL}</think>Hi"]) == [Reasoning(CALL), Content("Hi")]
    splitter = Splitter(style)
    cut_off = [*splitter.push(begun + CALL, 1), *splitter.end(cut=True)]
    assert [type(piece) for piece in cut_off] == [Reasoning]


@pytest.mark.parametrize(
    ("prompt", "continued", "opened"),
    [
        ("<user>Hi<assistant>", "", False),
        ("<assistant><think>", "", True),
        ("<assistant><think>\n", "", True),
        ("<assistant><think>\n\n</think>\n\n", "", False),
        ("<user>What is <think>?<assistant>", "", False),
        ("<user>What is <think>?<assistant>It", "It", False),
        ("<assistant><think>\nHm, so", "<think>\nHm, so", True),
        ("<assistant><think>\nHm, so", "Hm, so", True),
        ("<assistant><think></think><think>Hm", "<think>Hm", True),
        ("<assistant><think>Hm</think>I", "<think>Hm</think>I", False),
        ("<assistant><think>\nHm</think>I", "Hm</think>I", False),
    ],
)
def test_whether_a_prompt_ends_within_it(prompt: str, continued: str, opened: bool) -> None:
    assert THINK.opened_by(prompt, continued) is opened


@pytest.mark.parametrize(
    "text",
    [
        "<think>Hm.</think><response>Hi</response>",
        "<think>\nHm.\n</think>\n<response>\nHi\n</response>\n",
        "<think>Hm.</think>Hi",
        "<think>Hm.</think><response>Hi",
        "Here is my thought process:\nHm.\n\nHere is my response:\nHi",
        "Here's my thought process: Hm. Here's my response: Hi",
    ],
)
@pytest.mark.parametrize("template", ["<think></think> <response></response>", "'Here is my response:'"])
def test_granites_marks(template: str, text: str) -> None:
    thinking = thinking_of(template)
    assert thinking and thinking.opening in ("<think>", "Here is my thought process:")
    for parts in ([text], list(text)):
        assert split(AnswerStyle(thinking=thinking), parts) == THOUGHT_AND_ANSWER


def test_granites_calls_come_after_its_response() -> None:
    style = AnswerStyle(thinking=THINKING["granite"], tools=FORMATS["granite"])
    text = '<think>Hm.</think><response>Hi</response><|tool_call|>[{"name": "f", "arguments": {}}]'
    assert split(style, list(text)) == [*THOUGHT_AND_ANSWER, *CALLED]


def test_a_template_shows_its_marks() -> None:
    assert thinking_of("{{ message.content }}") is None
    assert thinking_of("{{ '<think>\\n\\n</think>' }}") is THINKING["think"]
    assert thinking_of("'</think>' '<response>' + result + '</response>'") is THINKING["think"]
    assert thinking_of("[THINK]{{ x }}[/THINK]") is THINKING["mistral"]
    assert thinking_of("<seed:think>{{ x }}</seed:think>") is THINKING["seed_oss"]
