"""OpenAI's own client: plain and streamed, sync and async, its helpers, and its errors."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal

import openai
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel, Field
from steps import CHAT, EMBEDDINGS, run

client = OpenAI(max_retries=0)
HELLO: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello!"}]


class Nest(BaseModel):
    mice: int = Field(ge=0, le=99)
    season: Literal["winter", "summer"]


class Weather(BaseModel):
    """Tells the weather."""

    city: Literal["Berlin", "Paris"]
    days: int = Field(ge=1, le=9)


TOOL = openai.pydantic_function_tool(Weather, name="get_weather")
FORCED: dict[str, Any] = {"tools": [TOOL], "parallel_tool_calls": False, "temperature": 1, "seed": 3}
NAMED: Any = {"type": "function", "function": {"name": "get_weather"}}


def models() -> str:
    listed = {model.id: model for model in client.models.list()}
    assert set(listed) == {CHAT, EMBEDDINGS}
    assert client.models.retrieve(CHAT).model_dump().keys() == listed[CHAT].model_dump().keys()
    return f"{', '.join(listed)}"


def chat() -> str:
    answer = client.chat.completions.create(model=CHAT, messages=HELLO, max_completion_tokens=40)
    choice, usage = answer.choices[0], answer.usage
    assert choice.message.role == "assistant" and choice.message.content
    assert choice.message.tool_calls is None and choice.message.refusal is None
    assert choice.finish_reason == "stop" and answer.object == "chat.completion" and answer.model == CHAT
    assert usage and usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.prompt_tokens_details is not None
    cut = client.chat.completions.create(model=CHAT, messages=HELLO, max_tokens=2)
    assert cut.choices[0].finish_reason == "length" and cut.usage and cut.usage.completion_tokens == 2
    return f"{choice.message.content!r}, {usage.total_tokens} tokens"


def streamed() -> str:
    chunks = list(
        client.chat.completions.create(
            model=CHAT, messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
    )
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    *_, finish, last = chunks
    assert finish.choices[0].finish_reason == "stop" and not last.choices
    assert last.usage and all(chunk.usage is None for chunk in chunks[:-1])
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    whole = client.chat.completions.create(model=CHAT, messages=HELLO)
    assert text == whole.choices[0].message.content
    assert whole.usage and last.usage.completion_tokens == whole.usage.completion_tokens
    return f"{len(chunks)} chunks, the text as it is unstreamed"


async def many_at_once() -> str:
    async with AsyncOpenAI(max_retries=0) as many:
        answers = await asyncio.gather(
            *(many.chat.completions.create(model=CHAT, messages=HELLO, n=2, max_tokens=8) for _ in range(4))
        )
        stream = await many.chat.completions.create(model=CHAT, messages=HELLO, max_tokens=8, stream=True)
        chunks = [chunk async for chunk in stream]
    texts = {choice.message.content for answer in answers for choice in answer.choices}
    texts.add("".join(chunk.choices[0].delta.content or "" for chunk in chunks))
    assert len(texts) == 1 and len({answer.id for answer in answers}) == 4
    return "four answers of two choices and a stream agree"


def stream_helper() -> str:
    with client.chat.completions.stream(model=CHAT, messages=HELLO, logprobs=True) as stream:
        events = [event.type for event in stream]
        final = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done", "logprobs.content.delta"} <= set(events)
    choice = final.choices[0]
    assert choice.finish_reason == "stop" and choice.logprobs and choice.logprobs.content
    assert "".join(entry.token for entry in choice.logprobs.content) == choice.message.content
    return f"{len(events)} events"


def parsed() -> str:
    answer = client.chat.completions.parse(
        model=CHAT, messages=HELLO, response_format=Nest, temperature=1, seed=7
    )
    nest = answer.choices[0].message.parsed
    assert isinstance(nest, Nest)
    with client.chat.completions.stream(
        model=CHAT, messages=HELLO, response_format=Nest, temperature=1, seed=7
    ) as stream:
        done = [event.parsed for event in stream if event.type == "content.done"]
    assert done == [nest]
    try:
        client.chat.completions.parse(model=CHAT, messages=HELLO, response_format=Nest, max_tokens=2)
    except openai.LengthFinishReasonError as error:
        assert error.completion.usage and error.completion.usage.completion_tokens == 2
    else:
        raise AssertionError("an answer cut short was parsed")
    return repr(nest)


def raw() -> str:
    answer = client.chat.completions.with_raw_response.create(
        model=CHAT, messages=HELLO, extra_headers={"x-request-id": "mine"}
    )
    assert answer.headers["x-request-id"] == "mine" and "prefill" in answer.headers["server-timing"]
    assert answer.parse()._request_id == "mine"
    with client.chat.completions.with_streaming_response.create(
        model=CHAT, messages=HELLO, stream=True
    ) as streaming:
        assert streaming.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in streaming.iter_lines() if line.startswith("data: ")]
    assert json.loads(lines[0].removeprefix("data: "))["choices"][0]["delta"]["role"] == "assistant"
    assert lines[-1] == "data: [DONE]"
    return f"headers, and {len(lines)} lines"


def completions() -> str:
    answer = client.completions.create(model=CHAT, prompt=["The dormouse", "A mouse"], max_tokens=4)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert {choice.finish_reason for choice in answer.choices} <= {"length", "stop"}
    return repr([choice.text for choice in answer.choices])


def embeddings() -> str:
    texts = ["A dormouse sleeps.", "Stock prices fell."]
    answer = client.embeddings.create(model=EMBEDDINGS, input=texts)
    floats = client.embeddings.create(model=EMBEDDINGS, input=texts, encoding_format="float")
    assert [item.index for item in answer.data] == [0, 1]
    assert [item.embedding for item in answer.data] == [item.embedding for item in floats.data]
    assert abs(sum(x * x for x in answer.data[0].embedding) - 1) < 1e-5
    ids = client.embeddings.create(model=EMBEDDINGS, input=[[101, 2023, 102], [101, 2008, 2003, 102]])
    assert len(ids.data) == 2 and ids.usage.prompt_tokens == ids.usage.total_tokens == 7
    return f"{len(answer.data[0].embedding)} numbers, as base64 and as they are, of texts and of token ids"


def errors() -> str:
    def told(kind: type[openai.APIStatusError], **changed: Any) -> openai.APIStatusError:
        try:
            client.chat.completions.create(**{"model": CHAT, "messages": HELLO, **changed})
        except kind as error:
            assert error.request_id
            return error
        raise AssertionError(f"no {kind.__name__}")

    assert told(openai.NotFoundError, model="no-such").code == "model_not_found"
    assert told(openai.BadRequestError, temperature=3).param == "temperature"
    assert told(openai.BadRequestError, temperature=3, stream=True).type == "invalid_request_error"
    long = [{"role": "user", "content": "mouse " * 5000}]
    assert told(openai.BadRequestError, messages=long).code == "context_length_exceeded"
    try:
        client.with_options(api_key="wrong").models.list()
    except openai.AuthenticationError as error:
        assert error.code == "invalid_api_key"
    else:
        raise AssertionError("a wrong key opens the door")
    return "each has its class, code and param"


def tools() -> str:
    messages = [*HELLO, {"role": "user", "content": "Weather?"}]
    for choice in (NAMED, "required"):
        answer = client.chat.completions.create(
            model=CHAT, messages=messages, tool_choice=choice, **FORCED
        ).choices[0]
        assert answer.message.tool_calls and len(answer.message.tool_calls) == 1
        call: Any = answer.message.tool_calls[0]
        assert call.id and call.type == "function" and call.function.name == "get_weather"
        Weather.model_validate_json(call.function.arguments)
        assert not answer.message.content
    messages += [answer.message, {"role": "tool", "tool_call_id": call.id, "content": "Rain."}]
    told = client.chat.completions.create(model=CHAT, messages=messages, tools=[TOOL], tool_choice="none")
    assert told.choices[0].finish_reason == "stop" and told.choices[0].message.tool_calls is None
    free = client.chat.completions.create(model=CHAT, messages=HELLO, tools=[TOOL], max_tokens=40)
    assert free.choices[0].message.content or free.choices[0].message.tool_calls
    return f"{call.function.name}({json.loads(call.function.arguments)}), and on with its result"


def several_calls() -> str:
    """The demo model calls till it tires or is cut short, so that the last call may be a torso."""
    stream = client.chat.completions.create(
        model=CHAT,
        messages=HELLO,
        tools=[TOOL],
        tool_choice="required",
        temperature=1,
        n=2,
        max_tokens=500,
        stream=True,
    )
    calls: list[dict[int, tuple[str, list[str]]]] = [{}, {}]
    for choice in (choice for chunk in stream for choice in chunk.choices):
        for delta in choice.delta.tool_calls or ():
            assert delta.function
            if delta.id:
                assert delta.function.name == "get_weather" and delta.index == len(calls[choice.index])
                calls[choice.index][delta.index] = delta.id, []
            calls[choice.index][delta.index][1].append(delta.function.arguments or "")
    texts = [["".join(parts) for _, parts in begun.values()] for begun in calls]
    for whole in (text for of_choice in texts for text in of_choice[:-1]):
        Weather.model_validate_json(whole)
    ids = [call_id for begun in calls for call_id, _ in begun.values()]
    assert len(set(ids)) == len(ids) and max(map(len, calls)) > 1
    return f"{' and '.join(str(len(begun)) for begun in calls)} calls in two choices"


def parsed_tools() -> str:
    answer = client.chat.completions.parse(model=CHAT, messages=HELLO, tool_choice="required", **FORCED)
    call = (answer.choices[0].message.tool_calls or [])[0]
    assert isinstance(call.function.parsed_arguments, Weather)
    assert answer.choices[0].finish_reason == "tool_calls"
    return repr(call.function.parsed_arguments)


def streamed_tools() -> str:
    with client.chat.completions.stream(
        model=CHAT, messages=HELLO, tool_choice="required", **FORCED
    ) as stream:
        events = list(stream)
        call = (stream.get_final_completion().choices[0].message.tool_calls or [])[0]
    deltas = [event for event in events if event.type == "tool_calls.function.arguments.delta"]
    done = [event for event in events if event.type == "tool_calls.function.arguments.done"]
    assert done and isinstance(done[0].parsed_arguments, Weather)
    joined = "".join(event.arguments_delta for event in deltas)
    assert joined == done[0].arguments == call.function.arguments
    assert call.id and call.function.name == "get_weather"
    return f"{len(deltas)} deltas"


run(
    models,
    chat,
    streamed,
    many_at_once,
    stream_helper,
    parsed,
    raw,
    completions,
    embeddings,
    errors,
    tools,
    several_calls,
    parsed_tools,
    streamed_tools,
)
