"""Reasoning: whether the model is told to, and what of its answer it is."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fake_engine import FakeGrammar
from tests.gateway.api.conftest import Gateway, running

HYBRID = (
    "{% for m in messages %}<{{ m.role }}>{{ m.reasoning_content or '' }}{{ m.content }}{% endfor %}"
    "<assistant>"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
    "{{ reasoning_effort or '' }}"
)
ALWAYS = "{% for m in messages %}{{ m.content }}{% endfor %}<assistant><think>\n{# </think> #}"
BEGINNING = (
    "{% for m in messages %}{{ '<think>\n' if m.role == 'assistant' }}{{ m.content }}{% endfor %}"
    "{# </think> #}"
)
THOUGHT = "<think>\nIs it a mouse?\n</think>\n\nIt is."
FORM = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}


def prompt(gateway: Gateway) -> str:
    return bytes(gateway.alpha.requests[-1].prompt_ids).decode()


def frame(gateway: Gateway) -> str | None:
    grammar = gateway.alpha.requests[-1].sampling.grammar
    assert isinstance(grammar, FakeGrammar)
    return grammar.constraint.frame


def thinks(gateway: Gateway, answer: str = THOUGHT, template: str = HYBRID) -> None:
    gateway.alpha.chat_template = template
    gateway.alpha.pieces = [answer[at : at + 4] for at in range(0, len(answer), 4)]


async def test_it_is_told_apart(gateway: Gateway) -> None:
    thinks(gateway)
    reply = await gateway.chat()
    message = reply.json["choices"][0]["message"]
    assert message == {
        "role": "assistant",
        "content": "It is.",
        "refusal": None,
        "reasoning_content": "Is it a mouse?",
    }
    usage = reply.json["usage"]
    assert 0 < usage["completion_tokens_details"]["reasoning_tokens"] < usage["completion_tokens"]


async def test_streamed_it_comes_before_the_content(gateway: Gateway) -> None:
    thinks(gateway)
    reply = await gateway.chat(stream=True, stream_options={"include_usage": True})
    deltas = [event["choices"][0]["delta"] for event in reply.events[:-2]]
    kinds = [key for delta in deltas[1:-1] for key in delta]
    assert kinds == sorted(kinds, reverse=True), "reasoning_content, then content"
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "Is it a mouse?"
    assert "".join(delta.get("content", "") for delta in deltas) == "It is."
    assert reply.events[-2]["usage"]["completion_tokens_details"]["reasoning_tokens"] > 0


async def test_the_template_may_begin_it(gateway: Gateway) -> None:
    thinks(gateway, "Hm.</think>Yes.", ALWAYS)
    message = (await gateway.chat()).json["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("Hm.", "Yes.")
    gateway.alpha.finish_reason = "length"
    thinks(gateway, "Hm, and so", ALWAYS)
    message = (await gateway.chat()).json["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("Hm, and so", "")


async def test_a_model_whose_template_knows_none_has_none(gateway: Gateway) -> None:
    gateway.alpha.pieces = [THOUGHT]
    message = (await gateway.chat()).json["choices"][0]["message"]
    assert message["content"] == THOUGHT
    assert "reasoning_content" not in message


@pytest.mark.parametrize(
    ("parser", "content"), [("none", THOUGHT), ("mistral", THOUGHT), ("think", "It is."), (None, "It is.")]
)
async def test_the_configuration_may_name_the_marks(parser: Any, content: str) -> None:
    async with running(reasoning_parser=parser) as gateway:
        thinks(gateway)
        assert (await gateway.chat()).json["choices"][0]["message"]["content"] == content


@pytest.mark.parametrize(
    ("fields", "end"),
    [
        ({}, "<assistant>"),
        ({"reasoning_effort": "none"}, "<think>\n\n</think>\n\nnone"),
        ({"reasoning_effort": "high"}, "<assistant>high"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, "<think>\n\n</think>\n\n"),
        (
            {"reasoning_effort": "high", "chat_template_kwargs": {"enable_thinking": False}},
            "</think>\n\nhigh",
        ),
        ({"response_format": FORM}, "<think>\n\n</think>\n\n"),
        ({"response_format": FORM, "reasoning_effort": "low"}, "<assistant>low"),
    ],
)
async def test_whether_it_is_told_to(gateway: Gateway, fields: dict[str, Any], end: str) -> None:
    thinks(gateway)
    assert (await gateway.chat(**fields)).status == 200
    assert prompt(gateway).endswith(end)


async def test_a_form_begins_after_the_reasoning(gateway: Gateway) -> None:
    thinks(gateway)
    await gateway.chat(response_format=FORM)
    assert frame(gateway) is None
    await gateway.chat(response_format=FORM, reasoning_effort="high")
    assert (frame(gateway) or "").startswith("start: reasoning? (@body)")
    thinks(gateway, template=ALWAYS)
    await gateway.chat(response_format=FORM)
    assert (frame(gateway) or "").startswith("start: reasoning (@body)")


async def test_an_unknown_effort_is_refused(gateway: Gateway) -> None:
    reply = await gateway.chat(reasoning_effort="heroic")
    assert (reply.status, reply.error["param"]) == (400, "reasoning_effort")
    assert gateway.is_cold()


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
async def test_it_may_be_sent_back(gateway: Gateway, name: str) -> None:
    thinks(gateway)
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", name: "c"},
        {"role": "user", "content": "d"},
    ]
    await gateway.chat(messages=messages)
    assert prompt(gateway) == "<user>a<assistant>cb<user>d<assistant>"


async def test_it_goes_with_calls(gateway: Gateway) -> None:
    call = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    thinks(gateway, f"<think>Hm.</think>\n{call}", HYBRID + "{{ tools or '' }}<tool_call>")
    tools = [{"type": "function", "function": {"name": "f"}}]
    message = (await gateway.chat(tools=tools)).json["choices"][0]["message"]
    assert message["reasoning_content"] == "Hm."
    assert message["content"] is None
    assert message["tool_calls"][0]["function"]["name"] == "f"


@pytest.mark.parametrize(
    ("template", "final", "reasoning", "content"),
    [
        (HYBRID, "<think>\nHm", ", so it is.", "A mouse."),
        (BEGINNING, "Hm", ", so it is.", "A mouse."),
        (HYBRID, "It is", None, ", so it is.</think>A mouse."),
    ],
)
async def test_reasoning_goes_on_where_the_final_message_is_within_it(
    gateway: Gateway, template: str, final: str, reasoning: str | None, content: str
) -> None:
    thinks(gateway, ", so it is.</think>A mouse.", template)
    messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": final}]
    fields: dict[str, Any] = {"messages": messages, "continue_final_message": True}
    message = (await gateway.chat(**fields)).json["choices"][0]["message"]
    assert prompt(gateway).endswith(final)
    assert (message.get("reasoning_content"), message["content"]) == (reasoning, content)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ 'Reasoning: ' + (reasoning_effort or 'low') }}{{ messages[0].content }}", "TypeError"),
        (
            "{% if reasoning_effort == 7 %}{{ raise_exception('low or high') }}{% endif %}"
            "{{ messages[0].content }}",
            "low or high",
        ),
    ],
)
async def test_a_variable_that_the_template_refuses_is_named(
    gateway: Gateway, template: str, reason: str
) -> None:
    gateway.alpha.chat_template = template
    assert (await gateway.chat()).status == 200
    reply = await gateway.chat(chat_template_kwargs={"reasoning_effort": 7})
    assert (reply.status, reply.error["param"]) == (400, "chat_template_kwargs")
    assert reply.error["message"] == f"the chat template refuses chat_template_kwargs: {reason}"
    reply = await gateway.chat(chat_template_kwargs={"reasoning_effort": "low"})
    assert reply.status == 200


async def test_what_the_template_refuses_anyway_is_not_laid_on_the_variables(gateway: Gateway) -> None:
    gateway.alpha.chat_template = "{{ raise_exception('never') }}"
    reply = await gateway.chat(chat_template_kwargs={"reasoning_effort": 7})
    assert (reply.status, reply.error["param"], reply.error["message"]) == (400, "messages", "never")
