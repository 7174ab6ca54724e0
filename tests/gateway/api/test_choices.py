"""``n``, what usage counts with it, cached tokens, and the resetting of the prefix cache."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.gateway.api.caller import Reply
from tests.gateway.api.conftest import Gateway, running


async def complete(gateway: Gateway, prompt: Any = "hello", **fields: Any) -> Reply:
    return await gateway.post("/v1/completions", {"model": "alpha", "prompt": prompt, **fields})


def usage(prompt: int, completion: int, cached: int = 0) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


async def test_chat_choices(gateway: Gateway) -> None:
    one = (await gateway.chat()).json
    answer = (await gateway.chat(n=3)).json
    assert gateway.alpha.requests[-1].n == 3
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert [choice["message"]["content"] for choice in answer["choices"]] == ["Hello!"] * 3
    assert answer["usage"].pop("completion_tokens_details") == {"reasoning_tokens": 0}
    assert answer["usage"] == usage(one["usage"]["prompt_tokens"], 12)
    assert len(ChatCompletion.model_validate(answer).choices) == 3


async def test_chat_choices_streamed(gateway: Gateway) -> None:
    reply = await gateway.chat(n=2, stream=True, stream_options={"include_usage": True})
    *chunks, last, done = reply.events
    assert done == "[DONE]"
    assert last["usage"]["completion_tokens"] == 8
    for index in range(2):
        mine = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["index"] == index]
        assert mine[0]["delta"]["role"] == "assistant"
        assert "".join(choice["delta"].get("content", "") for choice in mine) == "Hello!"
        assert [choice["finish_reason"] for choice in mine] == [None] * (len(mine) - 1) + ["stop"]
    assert all(ChatCompletionChunk.model_validate(chunk) for chunk in [*chunks, last])


@pytest.mark.parametrize("stream", [False, True])
async def test_an_echo_is_in_every_choice(gateway: Gateway, stream: bool) -> None:
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "Well: "}]
    reply = await gateway.chat(
        n=2,
        messages=messages,
        echo=True,
        continue_final_message=True,
        add_generation_prompt=False,
        stream=stream,
    )
    texts = ["", ""]
    for chunk in reply.events[:-1] if stream else [reply.json]:
        for choice in chunk["choices"]:
            texts[choice["index"]] += choice["delta" if stream else "message"].get("content", "")
    assert texts == ["Well: Hello!"] * 2


@pytest.mark.parametrize("stream", [False, True])
async def test_the_choices_of_several_prompts_are_numbered_through(gateway: Gateway, stream: bool) -> None:
    options = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    reply = await complete(gateway, ["a", "b", "c"], n=2, echo=True, **options)
    texts = [""] * 6
    chunks = reply.events[:-1] if stream else [reply.json]
    for chunk in chunks:
        if not stream:
            Completion.model_validate(chunk)
        for choice in chunk["choices"]:
            texts[choice["index"]] += choice["text"]
    assert texts == ["aHello!", "aHello!", "bHello!", "bHello!", "cHello!", "cHello!"]
    assert chunks[-1]["usage"] == usage(prompt=6, completion=24)


async def test_prompts_and_choices_together_are_bounded(gateway: Gateway) -> None:
    reply = await complete(gateway, ["a"] * 1024, n=2)
    assert (reply.status, reply.error["param"]) == (400, "n")
    assert gateway.is_cold()


@pytest.mark.parametrize("n", [1, 3])
async def test_cached_tokens_of_a_prompt_count_once(gateway: Gateway, n: int) -> None:
    gateway.alpha.cached_tokens = 2
    assert (await complete(gateway, n=n)).json["usage"] == usage(6, 4 * n, cached=2)
    assert (await complete(gateway, ["hello", "hello"], n=n)).json["usage"] == usage(12, 8 * n, cached=4)
    answer = (await gateway.chat(n=n)).json
    assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": 2}
    parsed = ChatCompletion.model_validate(answer)
    assert parsed.usage and parsed.usage.prompt_tokens_details
    assert parsed.usage.prompt_tokens_details.cached_tokens == 2


async def test_resetting_reaches_the_awake_and_wakes_nobody(gateway: Gateway) -> None:
    async def resets(query: str) -> int:
        reply = await gateway.post(f"/reset_prefix_cache{query}")
        assert (reply.status, reply.json) == (200, {"success": True})
        return gateway.alpha.resets + gateway.beta.resets

    assert await resets("?model=alpha") == 0
    assert gateway.is_cold()
    await gateway.chat()
    assert await resets("?model=gpt-4o-mini") == 1
    assert await resets("") == 2
    assert await resets("?model=org/beta") == 2
    await gateway.post("/sleep?model=alpha")
    assert await resets("?model=alpha") == 2
    assert gateway.fleet.is_sleeping("alpha") and gateway.alpha.wakes == 1
    reply = await gateway.post("/reset_prefix_cache?model=nobody")
    assert (reply.status, reply.error["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("wanted", [True, False])
async def test_the_configuration_turns_the_prefix_cache_on_and_off(wanted: bool) -> None:
    async with running(prefix_cache=wanted) as gateway:
        assert gateway.fleet.resolve("alpha").engine_options().prefix_cache == wanted
