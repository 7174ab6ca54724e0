from __future__ import annotations

import asyncio
import re
from time import monotonic
from typing import Any

import pytest

from engine import SamplingParams
from tests.gateway.api.caller import chat_body
from tests.gateway.api.conftest import Gateway, running

PROMPT = "<user>hello</user><assistant>"


async def test_answer_has_openais_shape(gateway: Gateway) -> None:
    reply = await gateway.chat()
    assert reply.status == 200
    answer = reply.json
    assert re.fullmatch(r"chatcmpl-[0-9a-f]{32}", answer.pop("id"))
    assert isinstance(answer.pop("created"), int)
    assert answer == {
        "object": "chat.completion",
        "model": "alpha",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello!", "refusal": None},
                "finish_reason": "stop",
                "logprobs": None,
            }
        ],
        "usage": {
            "prompt_tokens": len(PROMPT),
            "completion_tokens": 4,
            "total_tokens": len(PROMPT) + 4,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
        "prompt_logprobs": None,
    }


async def test_the_prompt_is_the_rendered_template_without_further_special_tokens(gateway: Gateway) -> None:
    await gateway.chat(chat_template_kwargs={"loud": True})
    assert bytes(gateway.alpha.requests[0].prompt_ids).decode() == PROMPT + "!"


async def test_stream_has_openais_chunks(gateway: Gateway) -> None:
    reply = await gateway.chat(stream=True)
    assert reply.status == 200
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.headers["cache-control"] == "no-cache"
    assert reply.headers["x-accel-buffering"] == "no"
    *chunks, done = reply.events
    assert done == "[DONE]"
    assert len({(chunk["id"], chunk["created"], chunk["model"], chunk["object"]) for chunk in chunks}) == 1
    assert chunks[0]["object"] == "chat.completion.chunk"
    assert all(chunk.keys() == {"id", "object", "created", "model", "choices"} for chunk in chunks)
    choices = [chunk["choices"] for chunk in chunks]
    assert choices == [
        [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}]
        for delta, finish in [
            ({"role": "assistant", "content": ""}, None),
            ({"content": "Hel"}, None),
            ({"content": "lo"}, None),
            ({"content": "!"}, None),
            ({}, "stop"),
        ]
    ]


async def test_stream_usage_comes_in_a_last_chunk_of_its_own(gateway: Gateway) -> None:
    reply = await gateway.chat(stream=True, stream_options={"include_usage": True})
    *chunks, last, _ = reply.events
    assert all(chunk["usage"] is None and chunk["choices"] for chunk in chunks)
    assert last["choices"] == []
    assert last["usage"] == {
        "prompt_tokens": len(PROMPT),
        "completion_tokens": 4,
        "total_tokens": len(PROMPT) + 4,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


async def test_continuous_usage_rises(gateway: Gateway) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    reply = await gateway.chat(stream=True, stream_options=options)
    counts = [chunk["usage"]["completion_tokens"] for chunk in reply.events[:-1]]
    assert counts == sorted(counts) and counts[0] == 1 and counts[-1] == 4


async def test_server_timing(gateway: Gateway) -> None:
    for stream in (False, True):
        timing = (await gateway.chat(stream=stream)).headers["server-timing"]
        assert re.fullmatch(r"queue;dur=[\d.]+, wake;dur=[\d.]+, prefill;dur=[\d.]+", timing)


@pytest.mark.usefixtures("beta_opens_slowly")
async def test_server_timing_counts_the_opening_as_a_part_of_the_wake(gateway: Gateway) -> None:
    began = monotonic()
    call = gateway.start_chat(model="org/beta")
    await asyncio.sleep(0.1)
    gateway.beta.may_open.set()
    reply = await call.reply()
    taken = 1000 * (monotonic() - began)
    parts = [float(part) for part in re.findall(r"dur=([\d.]+)", reply.headers["server-timing"])]
    assert parts[1] >= 90 and taken - 50 < sum(parts) <= taken + 1


async def sampling(gateway: Gateway, **fields: Any) -> SamplingParams:
    reply = await gateway.chat(**fields)
    assert reply.status == 200, reply.body
    return gateway.alpha.requests[-1].sampling


async def test_sampling_defaults_are_openais_and_all_that_is_left_of_the_context(gateway: Gateway) -> None:
    assert await sampling(gateway) == SamplingParams(max_tokens=200 - len(PROMPT))


async def test_all_sampling_fields_arrive(gateway: Gateway) -> None:
    params = await sampling(
        gateway,
        max_tokens=7,
        min_tokens=3,
        temperature=0,
        top_p=0.5,
        top_k=5,
        min_p=0.1,
        repetition_penalty=1.3,
        presence_penalty=-2,
        frequency_penalty=2,
        logit_bias={"7": -100, "255": 0.5},
        logprobs=True,
        top_logprobs=20,
        prompt_logprobs=0,
        seed=-(2**63),
        stop=["a", "b"],
        stop_token_ids=[7],
        ignore_eos=True,
    )
    assert params == SamplingParams(
        max_tokens=7,
        min_tokens=3,
        temperature=0,
        top_p=0.5,
        top_k=5,
        min_p=0.1,
        repetition_penalty=1.3,
        presence_penalty=-2,
        frequency_penalty=2,
        logit_bias={7: -100, 255: 0.5},
        logprobs=20,
        prompt_logprobs=0,
        seed=-(2**63),
        stop=("a", "b"),
        stop_token_ids=frozenset({7}),
        ignore_eos=True,
    )
    assert (await sampling(gateway, stop="x", top_k=-1)).stop == ("x",)
    assert (await sampling(gateway, logprobs=True)).logprobs == 0
    assert (await sampling(gateway, max_tokens=7, max_completion_tokens=8)).max_tokens == 8


async def test_sampling_comes_from_the_request_then_the_configuration_then_the_checkpoint() -> None:
    async with running(sampling={"temperature": 0.7, "top_k": 9}) as gateway:
        gateway.alpha.sampling_defaults.update(temperature=0.6, top_p=0.8, repetition_penalty=1.1)
        params = await sampling(gateway)
        assert (params.temperature, params.top_p, params.top_k) == (0.7, 0.8, 9)
        assert params.repetition_penalty == 1.1
        assert (await sampling(gateway, repetition_penalty=1)).repetition_penalty == 1
        params = await sampling(gateway, temperature=0, top_p=1)
        assert (params.temperature, params.top_p, params.top_k) == (0, 1, 9)


async def test_neutral_values_and_unknown_fields_are_accepted(gateway: Gateway) -> None:
    reply = await gateway.chat(
        n=1,
        logprobs=False,
        presence_penalty=0,
        frequency_penalty=0.0,
        repetition_penalty=1,
        logit_bias={},
        tools=[],
        response_format={"type": "text"},
        stream=False,
        stream_options=None,
        temperature=None,
        user="me",
        store=True,
        metadata={"a": "b"},
        reasoning_effort="low",
        nobody_knows={"this": [1]},
    )
    assert reply.status == 200
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert (await gateway.chat(tools=tools, tool_choice="none")).status == 200


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"structured_outputs": {"structural_tag": {}}}, "structured_outputs.structural_tag"),
    ],
)
async def test_what_is_not_supported_yet_is_refused(
    gateway: Gateway, fields: dict[str, Any], param: str
) -> None:
    reply = await gateway.chat(**fields)
    assert reply.status == 400
    assert reply.error["param"] == param
    assert "not supported" in reply.error["message"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": 1}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [123]}, "messages[0]"),
        ({"messages": [{}]}, "messages[0].role"),
        ({"messages": [{"role": 1, "content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "king", "content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages[0].content"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"text": "a"}]}]}, "messages[0].content[0].type"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0].type",
        ),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": -0.1, "stream": True}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_k": -2}, "top_k"),
        ({"min_p": 1.5}, "min_p"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"max_tokens": 5, "min_tokens": 6}, "min_tokens"),
        ({"seed": 2**63}, "seed"),
        ({"user": 1}, "user"),
        ({"store": "yes"}, "store"),
        ({"metadata": "x"}, "metadata"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"metadata": {"a": {"b": "c"}}}, "metadata"),
        ({"modalities": ["text", "audio"]}, "modalities[1]"),
        ({"verbosity": "loud"}, "verbosity"),
        ({"seed": -(2**63) - 1}, "seed"),
        ({"stop": ""}, "stop"),
        ({"stop": [1]}, "stop[0]"),
        ({"stop_token_ids": ["a"]}, "stop_token_ids[0]"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": False, "top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": 3}, "logprobs"),
        ({"logprobs": True, "top_logprobs": -1}, "top_logprobs"),
        ({"prompt_logprobs": -1}, "prompt_logprobs"),
        ({"prompt_logprobs": 21}, "prompt_logprobs"),
        ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
        ({"presence_penalty": 2.1}, "presence_penalty"),
        ({"frequency_penalty": -2.1}, "frequency_penalty"),
        ({"logit_bias": {"1": "a"}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias"),
        ({"logit_bias": {"one": 1}}, "logit_bias"),
        ({"logit_bias": {"256": 1}}, "logit_bias"),
        ({"logit_bias": {"-1": 1}}, "logit_bias"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"keep_alive": "soon"}, "keep_alive"),
        ({"chat_template_kwargs": []}, "chat_template_kwargs"),
        ({"continue_final_message": True, "add_generation_prompt": True}, "continue_final_message"),
    ],
)
async def test_bad_fields_are_named_and_nothing_is_woken(
    gateway: Gateway, fields: dict[str, Any], param: str
) -> None:
    reply = await gateway.post("/v1/chat/completions", chat_body() | fields)
    assert reply.status == 400
    assert reply.error["type"] == "invalid_request_error"
    assert reply.error["param"] == param
    assert gateway.is_cold()


async def test_a_missing_field_is_named(gateway: Gateway) -> None:
    messages = chat_body()["messages"]
    assert (await gateway.post("/v1/chat/completions", {"messages": messages})).error["param"] == "model"
    assert (await gateway.post("/v1/chat/completions", {"model": "alpha"})).error["param"] == "messages"


async def test_text_parts_and_history(gateway: Gateway) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "hello"}], "name": "me", "extra": 1},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "3", "tool_call_id": "c1"},
    ]
    reply = await gateway.post("/v1/chat/completions", {"model": "gpt-4o-mini", "messages": messages})
    assert reply.status == 200
    assert reply.json["model"] == "alpha"
    prompt = bytes(gateway.alpha.requests[0].prompt_ids).decode()
    assert prompt == (
        '<system>Be brief.</system><user>hello</user><assistant><tool_call>\n{"name": "add", "arguments": {}}'
        "\n</tool_call></assistant><user><tool_response>\n3\n</tool_response></user><assistant>"
    )


@pytest.mark.parametrize("role", ["tool", "function"])
async def test_a_function_may_return_nothing(gateway: Gateway, role: str) -> None:
    answer = {"role": role, "content": None, "name": "sleep", "tool_call_id": "c1"}
    prompts = []
    for content in (None, ""):
        messages = [{"role": "user", "content": "hi"}, {**answer, "content": content}]
        assert (await gateway.chat(messages=messages)).status == 200
        prompts.append(gateway.alpha.requests[-1].prompt_ids)
    assert prompts[0] == prompts[1]


@pytest.mark.parametrize("choice", ["none", "auto", None])
async def test_a_choice_of_functions_that_are_none_is_accepted(gateway: Gateway, choice: str | None) -> None:
    assert (await gateway.chat(function_call=choice, functions=[])).status == 200


async def test_a_nucleus_of_nothing_is_accepted(gateway: Gateway) -> None:
    assert (await sampling(gateway, top_p=0)).top_p == 0


async def test_what_concerns_openai_alone_is_accepted(gateway: Gateway) -> None:
    reply = await gateway.chat(
        user="me",
        store=True,
        metadata={"a": "b"},
        service_tier="auto",
        modalities=["text"],
        verbosity="low",
        prompt_cache_key="k",
        safety_identifier="s",
        prediction={"type": "content", "content": "Hello!"},
        thinking={"type": "enabled"},
    )
    assert reply.status == 200


async def test_continue_final_message(gateway: Gateway) -> None:
    messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "Well, "}]
    fields = {"messages": messages, "continue_final_message": True}
    reply = await gateway.chat(**fields)
    assert bytes(gateway.alpha.requests[0].prompt_ids).decode() == "<user>hello</user><assistant>Well, "
    assert reply.json["choices"][0]["message"]["content"] == "Hello!"
    reply = await gateway.chat(**fields, echo=True)
    assert reply.json["choices"][0]["message"]["content"] == "Well, Hello!"
    reply = await gateway.chat(**fields, echo=True, stream=True)
    pieces = [chunk["choices"][0]["delta"].get("content", "") for chunk in reply.events[:-1]]
    assert pieces == ["", "Well, ", "Hel", "lo", "!", ""]


async def test_add_generation_prompt_can_be_left_out(gateway: Gateway) -> None:
    await gateway.chat(add_generation_prompt=False)
    assert bytes(gateway.alpha.requests[0].prompt_ids).decode() == "<user>hello</user>"


async def test_a_configured_template_has_the_last_word() -> None:
    async with running(chat_template="{{ bos_token }}{{ messages[0].content }}") as gateway:
        await gateway.chat()
        assert bytes(gateway.alpha.requests[0].prompt_ids).decode() == "<s>hello"


async def test_a_model_without_a_template_cannot_chat(gateway: Gateway) -> None:
    async with running() as gateway:
        gateway.alpha.chat_template = None
        reply = await gateway.chat()
        assert (reply.status, reply.error["param"]) == (400, "model")
        assert "chat template" in reply.error["message"]
        assert gateway.is_cold()


@pytest.mark.parametrize(
    ("content", "fields", "param"),
    [
        ("x" * 180, {}, "messages"),
        ("x" * 1000, {}, "messages"),
        ("x" * 180, {"max_tokens": 190}, "messages"),
        ("x", {"max_tokens": 190}, "max_tokens"),
        ("x", {"max_completion_tokens": 10**6, "stream": True}, "max_completion_tokens"),
        ("x", {"max_completion_tokens": 190, "max_tokens": 1}, "max_completion_tokens"),
    ],
)
async def test_what_does_not_fit_into_the_context_is_refused(
    gateway: Gateway, content: str, fields: dict[str, Any], param: str
) -> None:
    reply = await gateway.chat(content, **fields)
    assert reply.status == 400
    assert reply.error["code"] == "context_length_exceeded"
    assert reply.error["param"] == param
    assert "200" in reply.error["message"]
    assert gateway.is_cold()


async def test_a_prompt_that_can_never_fit_is_not_even_encoded(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode(text: str, *, add_special_tokens: bool) -> list[int]:
        raise AssertionError("encoded")

    monkeypatch.setattr(await gateway.fleet.opened("alpha"), "encode", encode)
    reply = await gateway.chat("x" * 401)
    assert reply.error["code"] == "context_length_exceeded"


async def test_of_a_conversation_that_is_cut_the_end_is_kept(gateway: Gateway) -> None:
    whole = await gateway.chat("hello")
    cut = await gateway.chat("hello", truncate_prompt_tokens=4)
    assert (whole.status, cut.status) == (200, 200)
    first, second = [list(request.prompt_ids) for request in gateway.alpha.requests]
    assert second == first[-4:]
