"""vLLM's tokenizing routes, for whatever model and in whatever state."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.app import create_app
from gateway.config import Config, ModelConfig
from gateway.fleet import Fleet, SchedulerTimers
from tests.gateway.api.caller import Caller, Reply, until
from tests.gateway.api.conftest import Gateway, running
from tests.gateway.api.scripted import TEMPLATE, Script, ScriptedBackend

CHAT = [{"role": "user", "content": "hi"}]


async def tokenize(gateway: Gateway, **fields: Any) -> Reply:
    return await gateway.post("/tokenize", {"model": "alpha", **fields})


async def detokenize(gateway: Gateway, tokens: Any, **fields: Any) -> Reply:
    return await gateway.post("/detokenize", {"model": "alpha", "tokens": tokens, **fields})


async def test_a_text(gateway: Gateway) -> None:
    reply = await tokenize(gateway, prompt="hi")
    assert reply.status == 200
    tokens = [1, *b"hi"]
    assert reply.json == {"count": 3, "max_model_len": 200, "tokens": tokens, "token_strs": None}
    reply = await tokenize(gateway, prompt="hi", add_special_tokens=False, return_token_strs=True)
    assert (reply.json["tokens"], reply.json["token_strs"]) == ([*b"hi"], ["<68>", "<69>"])
    assert (await tokenize(gateway, prompt="", messages=None)).json["tokens"] == [1]
    assert gateway.is_cold()


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "<user>hi</user><assistant>"),
        ({"add_generation_prompt": False}, "<user>hi</user>"),
        ({"continue_final_message": True}, "<user>hi"),
        ({"chat_template_kwargs": {"loud": 1}}, "<user>hi</user><assistant>!"),
        ({"add_special_tokens": True}, "\x01<user>hi</user><assistant>"),
        ({"tools": [], "return_token_strs": False}, "<user>hi</user><assistant>"),
    ],
)
async def test_a_conversation(gateway: Gateway, fields: dict[str, Any], text: str) -> None:
    reply = await tokenize(gateway, messages=CHAT, **fields)
    assert bytes(reply.json["tokens"]).decode() == text
    assert reply.json["count"] == len(text)
    assert gateway.is_cold()


async def test_it_counts_what_a_prompt_is_counted_as(gateway: Gateway) -> None:
    chat = await gateway.chat("hello")
    counted = await tokenize(gateway, messages=[{"role": "user", "content": "hello"}])
    assert counted.json["count"] == chat.json["usage"]["prompt_tokens"]
    text = await gateway.post("/v1/completions", {"model": "alpha", "prompt": "hello"})
    assert (await tokenize(gateway, prompt="hello")).json["count"] == text.json["usage"]["prompt_tokens"]


async def test_tools_are_in_the_prompt() -> None:
    template = "{% for tool in tools or [] %}[{{ tool.function.name }}]{% endfor %}{{ messages[0].content }}"
    tools = [{"type": "function", "function": {"name": "look"}}]
    async with running(chat_template=template) as gateway:
        with_tools = await tokenize(gateway, messages=CHAT, tools=tools)
        assert bytes(with_tools.json["tokens"]) == b"[look]hi"
        assert bytes((await tokenize(gateway, messages=CHAT)).json["tokens"]) == b"hi"
        for bad in ([1], [{"type": "function"}], tools * 2):
            reply = await tokenize(gateway, messages=CHAT, tools=bad)
            assert reply.status == 400
            assert reply.error["param"].startswith("tools")


async def test_a_text_longer_than_the_context(gateway: Gateway) -> None:
    assert (await tokenize(gateway, prompt="x" * 5000)).json["count"] == 5001


async def test_a_text_that_takes_too_long(gateway: Gateway) -> None:
    for path, body, param in (
        ("/tokenize", {"prompt": "é" * 2**19 + "x"}, "prompt"),
        ("/tokenize", {"messages": [{"role": "user", "content": "x" * 2**20}]}, "messages"),
        ("/detokenize", {"tokens": [97] * (2**20 + 1)}, "tokens"),
    ):
        reply = await gateway.post(path, {"model": "alpha", **body})
        assert (reply.status, reply.error["param"]) == (400, param)
        assert str(2**20) in reply.error["message"]
    assert (await tokenize(gateway, prompt="é" * 2**19)).status == 200


async def test_and_back(gateway: Gateway) -> None:
    assert (await detokenize(gateway, [*b"hi"])).json == {"prompt": "hi"}
    assert (await detokenize(gateway, [])).json == {"prompt": ""}
    assert gateway.is_cold()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "prompt"),
        ({"prompt": "hi", "messages": CHAT}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"prompt": "hi", "add_special_tokens": "yes"}, "add_special_tokens"),
        ({"prompt": "hi", "return_token_strs": 1}, "return_token_strs"),
        ({"messages": CHAT, "chat_template_kwargs": []}, "chat_template_kwargs"),
        (
            {"messages": CHAT, "add_generation_prompt": True, "continue_final_message": True},
            "continue_final_message",
        ),
        ({"prompt": "hi", "model": 1}, "model"),
    ],
)
async def test_bad_fields_are_named(gateway: Gateway, fields: dict[str, Any], param: str) -> None:
    reply = await tokenize(gateway, **fields)
    assert (reply.status, reply.error["param"]) == (400, param)


@pytest.mark.parametrize(
    ("tokens", "param"),
    [
        ([-1], "tokens"),
        ([256], "tokens"),
        ([10**30], "tokens"),
        (["a"], "tokens[0]"),
        ([1.5], "tokens[0]"),
        ([True], "tokens[0]"),
        ("hi", "tokens"),
        (None, "tokens"),
    ],
)
async def test_bad_tokens_are_named(gateway: Gateway, tokens: Any, param: str) -> None:
    reply = await detokenize(gateway, tokens)
    assert (reply.status, reply.error["param"]) == (400, param)


async def test_bad_bodies_and_models(gateway: Gateway) -> None:
    for path in ("/tokenize", "/detokenize"):
        for body in (b"", b"[]", b"{", b"nil"):
            assert (await gateway.post(path, body=body)).status == 400
    body: dict[str, Any]
    for path, body in (("/tokenize", {"prompt": "hi"}), ("/detokenize", {"tokens": [1]})):
        unknown = await gateway.post(path, {"model": "nobody", **body})
        assert (unknown.status, unknown.error["code"]) == (404, "model_not_found")
        absent = await gateway.post(path, body)
        assert (absent.status, absent.error["param"]) == (400, "model")
        assert "org/beta" in absent.error["message"]
    assert (await gateway.get("/tokenizer_info")).error["param"] == "model"
    assert (await gateway.get("/tokenizer_info?model=nobody")).status == 404


async def test_the_only_model_need_not_be_named() -> None:
    backend = ScriptedBackend({"/alpha": Script(kind="embed", embedding_size=4, chat_template=None)})
    config = Config(models=(ModelConfig(name="alpha", path="/alpha"),))
    fleet = Fleet(config, SchedulerTimers(), backend=backend)
    await fleet.start()
    caller = Caller(create_app(fleet))
    try:
        assert (await caller.post("/tokenize", {"prompt": "hi"})).json["tokens"] == [1, *b"hi"]
        assert (await caller.post("/detokenize", {"tokens": [*b"hi"]})).json == {"prompt": "hi"}
        assert (await caller.get("/tokenizer_info")).json["eos_token"] == "</s>"
        no_template = await caller.post("/tokenize", {"messages": CHAT})
        assert (no_template.status, no_template.error["param"]) == (400, "model")
    finally:
        await fleet.close()


async def test_what_a_tokenizer_tells_of_itself() -> None:
    async with running(chat_template="{{ bos_token }}") as gateway:
        assert (await gateway.get("/tokenizer_info?model=alpha")).json == {
            "bos_token": "<s>",
            "eos_token": "</s>",
            "chat_template": "{{ bos_token }}",
            "model_max_length": 200,
        }
        info = (await gateway.get("/tokenizer_info?model=org/beta")).json
        assert info["chat_template"] == TEMPLATE


async def test_asleep_as_awake(gateway: Gateway) -> None:
    await gateway.chat()
    awake = (await tokenize(gateway, messages=CHAT)).json
    await gateway.post("/sleep?model=alpha&level=2")
    before = (await gateway.get("/api/status")).json["models"][0]
    assert (await tokenize(gateway, messages=CHAT)).json == awake
    assert (await detokenize(gateway, awake["tokens"])).status == 200
    after = (await gateway.get("/api/status")).json["models"][0]
    assert (after["state"], after["level"], after["in_flight"]) == ("asleep", 2, 0)
    assert after["last_wake"] == before["last_wake"]


async def test_it_waits_until_the_model_is_opened(gateway: Gateway) -> None:
    gateway.beta.may_open.clear()
    call = gateway.call("POST", "/tokenize", json_body={"model": "org/beta", "prompt": "hi"})
    await asyncio.sleep(0.05)
    assert not call.task.done()
    gateway.beta.may_open.set()
    assert (await call.reply()).json["count"] == 3
    await until(lambda: gateway.fleet.ready)
    assert gateway.is_cold()
