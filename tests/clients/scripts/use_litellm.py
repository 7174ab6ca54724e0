"""LiteLLM: as an ``openai/`` and a ``hosted_vllm/`` provider, streams put together again, errors by class."""

from __future__ import annotations

import json
import os
from typing import Any, Literal

import litellm
from pydantic import BaseModel, Field
from steps import CHAT, EMBEDDINGS, run

URL, KEY = os.environ["OPENAI_BASE_URL"], os.environ["OPENAI_API_KEY"]
litellm.suppress_debug_info = True
OURS: dict[str, Any] = {"model": f"openai/{CHAT}", "api_base": URL, "max_retries": 0}
HELLO = [{"role": "user", "content": "Hello!"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Berlin", "Paris"]}},
            "required": ["city"],
        },
    },
}
FORCED: dict[str, Any] = {"tools": [TOOL], "parallel_tool_calls": False, "temperature": 1, "seed": 3}
NAMED = {"type": "function", "function": {"name": "get_weather"}}


class Nest(BaseModel):
    mice: int = Field(ge=0, le=99)
    season: Literal["winter", "summer"]


def completion() -> str:
    answer = litellm.completion(**OURS, messages=HELLO)
    choice = answer.choices[0]
    assert choice.finish_reason == "stop" and choice.message.role == "assistant" and choice.message.content
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0
    vllm = {"model": f"hosted_vllm/{CHAT}", "api_base": URL, "api_key": KEY}
    assert litellm.completion(**vllm, messages=HELLO).choices[0].message.content == choice.message.content
    return repr(choice.message.content)


async def acompletion() -> str:
    answer = await litellm.acompletion(**OURS, messages=HELLO)
    stream = await litellm.acompletion(**OURS, messages=HELLO, stream=True)
    text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text == answer.choices[0].message.content
    return repr(text)


def stream_chunk_builder() -> str:
    chunks = list(
        litellm.completion(**OURS, messages=HELLO, stream=True, stream_options={"include_usage": True})
    )
    whole = litellm.stream_chunk_builder(chunks, messages=HELLO)
    plain = litellm.completion(**OURS, messages=HELLO)
    assert whole.choices[0].message.content == plain.choices[0].message.content
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage.completion_tokens == plain.usage.completion_tokens
    assert whole.usage.prompt_tokens == plain.usage.prompt_tokens
    return f"{len(chunks)} chunks"


def json_schema() -> str:
    answer = litellm.completion(**OURS, messages=HELLO, response_format=Nest, temperature=1, seed=7)
    return repr(Nest.model_validate_json(answer.choices[0].message.content))


def text_completion() -> str:
    answer = litellm.text_completion(
        model=f"text-completion-openai/{CHAT}", api_base=URL, prompt="The dormouse", max_tokens=4
    )
    assert answer.choices[0].text and answer.usage.completion_tokens == 4
    return repr(answer.choices[0].text)


def embedding() -> str:
    made = litellm.embedding(model=f"openai/{EMBEDDINGS}", api_base=URL, input=["Hello", "mouse"])
    assert [item["index"] for item in made.data] == [0, 1] and made.usage.prompt_tokens > 0
    as_text = litellm.embedding(
        model=f"openai/{EMBEDDINGS}", api_base=URL, input="Hello", encoding_format="float"
    )
    assert as_text.data[0]["embedding"] == made.data[0]["embedding"]
    return f"{len(made.data[0]['embedding'])} numbers"


def errors() -> str:
    cases: list[tuple[type[Exception], dict[str, Any]]] = [
        (litellm.NotFoundError, {"model": "openai/no-such"}),
        (litellm.AuthenticationError, {"api_key": "wrong"}),
        (litellm.BadRequestError, {"temperature": 3}),
        (litellm.BadRequestError, {"temperature": 3, "stream": True}),
        (litellm.ContextWindowExceededError, {"messages": [{"role": "user", "content": "mouse " * 5000}]}),
    ]
    for kind, changed in cases:
        try:
            litellm.completion(**{**OURS, "messages": HELLO, **changed})
        except kind as error:
            assert type(error) is kind, error
        else:
            raise AssertionError(f"no {kind.__name__}")
    return ", ".join(dict.fromkeys(kind.__name__ for kind, _ in cases))


def tools() -> str:
    for choice in (NAMED, "required"):
        answer = litellm.completion(**OURS, **FORCED, messages=HELLO, tool_choice=choice).choices[0]
        call = answer.message.tool_calls[0]
        assert call.function.name == "get_weather" and call.id
    assert answer.finish_reason == "tool_calls"
    result = {"role": "tool", "tool_call_id": call.id, "content": "Rain."}
    history = [*HELLO, answer.message, result]
    told = litellm.completion(**OURS, messages=history, tools=[TOOL], tool_choice="none")
    assert told.choices[0].message.content and not told.choices[0].message.tool_calls
    return f"{call.function.name}({json.loads(call.function.arguments)}), and on with its result"


def streamed_tools() -> str:
    required = {**OURS, **FORCED, "messages": HELLO, "tool_choice": "required"}
    chunks = list(litellm.completion(**required, stream=True))
    answer = litellm.stream_chunk_builder(chunks, messages=HELLO).choices[0]
    (call,) = answer.message.tool_calls
    (unstreamed,) = litellm.completion(**required).choices[0].message.tool_calls
    assert (call.function.name, call.function.arguments) == (
        unstreamed.function.name,
        unstreamed.function.arguments,
    )
    assert answer.finish_reason == "tool_calls" and call.id
    return f"{len(chunks)} chunks: {json.loads(call.function.arguments)}"


run(
    completion,
    acompletion,
    stream_chunk_builder,
    json_schema,
    text_completion,
    embedding,
    errors,
    tools,
    streamed_tools,
)
