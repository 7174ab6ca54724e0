"""langchain-openai: messages, streams, tools, structured output in each of its ways, embeddings."""

from __future__ import annotations

import math
import os
from typing import Any, Literal

import openai
import tiktoken
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, Field
from steps import CHAT, EMBEDDINGS, TO_THE_POINT, run

URL = os.environ["OPENAI_BASE_URL"]
model = ChatOpenAI(model=CHAT, base_url=URL, max_retries=0, stream_usage=True)
warm = ChatOpenAI(model=CHAT, base_url=URL, max_retries=0, temperature=1, seed=7, max_tokens=200)


class Nest(BaseModel):
    """A nest of mice."""

    mice: int = Field(ge=0, le=99)
    season: Literal["winter", "summer"]


@tool
def get_weather(city: Literal["Berlin", "Paris"]) -> str:
    """Tells the weather of a city."""
    return f"It rains in {city}."


def invoke() -> str:
    answer = model.invoke([("system", "Be brief."), ("human", "Hello!")])
    assert isinstance(answer, AIMessage) and answer.content and not answer.tool_calls
    assert answer.response_metadata["finish_reason"] == "stop"
    assert answer.response_metadata["model_name"] == CHAT
    usage = answer.usage_metadata
    assert usage and usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert "cache_read" in usage["input_token_details"]
    return repr(answer.content)


async def stream() -> str:
    chunks = list(model.stream("Hello!"))
    whole = sum(chunks[1:], chunks[0])
    assert isinstance(whole, AIMessageChunk) and whole.usage_metadata
    assert whole.usage_metadata["output_tokens"] > 1
    assert whole.response_metadata["finish_reason"] == "stop"
    assert whole.content == model.invoke("Hello!").content
    assert whole.content == "".join([str(chunk.content) async for chunk in model.astream("Hello!")])
    return f"{len(chunks)} chunks, {whole.usage_metadata['total_tokens']} tokens"


async def chain() -> str:
    told = ChatPromptTemplate.from_messages([("human", "What is {a} + {b}?")]) | model | StrOutputParser()
    sums = await told.abatch([{"a": 1, "b": 2}, {"a": 2, "b": 2}])
    assert sums == [told.invoke({"a": 1, "b": 2}), told.invoke({"a": 2, "b": 2})]
    return repr(sums)


def json_schema() -> str:
    told: Any = warm.with_structured_output(Nest, method="json_schema", strict=True, include_raw=True).invoke(
        "How many mice?"
    )
    assert isinstance(told["parsed"], Nest) and told["parsing_error"] is None
    partial = list(warm.with_structured_output(Nest).stream("How many mice?"))
    assert partial[-1] == told["parsed"]
    return repr(told["parsed"])


def json_mode() -> str:
    terse = ChatOpenAI(model=CHAT, base_url=URL, max_retries=0, logit_bias=TO_THE_POINT)
    told = terse.with_structured_output(None, method="json_mode").invoke("Some JSON, please.")
    assert told == {}
    return repr(told)


def function_calling() -> str:
    told = warm.with_structured_output(Nest, method="function_calling").invoke("How many mice?")
    assert isinstance(told, Nest)
    return repr(told)


def tools() -> str:
    asked = HumanMessage("What is the weather?")
    for choice in ("any", "get_weather"):
        forced = warm.bind_tools([get_weather], tool_choice=choice, strict=True, parallel_tool_calls=False)
        called = forced.invoke([asked])
        call = called.tool_calls[0]
        assert call["name"] == "get_weather" and call["id"] and not called.invalid_tool_calls
    result = get_weather.invoke(call)
    assert isinstance(result, ToolMessage) and result.tool_call_id == call["id"]
    told = model.bind_tools([get_weather], tool_choice="none").invoke([asked, called, result])
    assert told.content and not told.tool_calls
    assert isinstance(model.bind_tools([get_weather]).invoke([asked]), AIMessage)
    return f"{call['name']}({call['args']}), and on with its result"


def streamed_tools() -> str:
    forced = warm.bind_tools([get_weather], tool_choice="any", parallel_tool_calls=False)
    chunks = list(forced.stream("What is the weather?"))
    whole = sum(chunks[1:], chunks[0])
    assert isinstance(whole, AIMessageChunk)
    (call,) = whole.tool_calls
    assert call["name"] == "get_weather" and call["args"]["city"] in ("Berlin", "Paris") and call["id"]
    assert whole.response_metadata["finish_reason"] == "tool_calls"
    return f"{len(chunks)} chunks"


def embeddings_of_texts() -> str:
    made = OpenAIEmbeddings(model=EMBEDDINGS, base_url=URL, check_embedding_ctx_length=False)
    sleeping, stocks = made.embed_documents(["A dormouse sleeps.", "Stock prices fell."])
    query = made.embed_query("An animal hibernates.")
    assert dot(query, sleeping) > dot(query, stocks)
    return f"{len(query)} numbers"


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def embeddings_of_token_ids() -> str:
    """Its default. Long texts go in pieces; the encoding is one that needs no download."""
    by_byte = tiktoken.Encoding(
        "bytes", pat_str="(?s).", mergeable_ranks={bytes([i]): i for i in range(256)}, special_tokens={}
    )
    tiktoken.registry.ENCODINGS["cl100k_base"] = by_byte
    made = OpenAIEmbeddings(model=EMBEDDINGS, base_url=URL, embedding_ctx_length=200)
    texts = ["mouse", "dormouse " * 50]
    short, long = made.embed_documents(texts)
    same = openai.OpenAI().embeddings.create(model=EMBEDDINGS, input=[list(texts[0].encode())])
    assert short == same.data[0].embedding
    assert math.isclose(math.hypot(*long), 1, rel_tol=1e-5)
    return "as the same ids by the SDK; a text beyond the context in pieces"


run(
    invoke,
    stream,
    chain,
    json_schema,
    json_mode,
    function_calling,
    tools,
    streamed_tools,
    embeddings_of_texts,
    embeddings_of_token_ids,
)
