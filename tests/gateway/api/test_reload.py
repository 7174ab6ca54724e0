"""What clients see of a new configuration."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from engine import Kind
from gateway.api import sse
from gateway.config import ModelConfig, ServerConfig
from tests.gateway.api.caller import until
from tests.gateway.api.conftest import Gateway, running


def reconfigure(gateway: Gateway, *models: ModelConfig, **server: Any) -> None:
    config = gateway.fleet.config
    gateway.fleet.reconfigure(
        replace(config, models=models or config.models, server=replace(config.server, **server))
    )


def replaced(gateway: Gateway, **changes: Any) -> None:
    """From now on ``alpha`` is what ``org/beta`` was, which is no more."""
    reconfigure(gateway, replace(gateway.fleet.resolve("alpha"), path="org/beta", **changes))


async def test_the_new_models_are_seen_at_once(gateway: Gateway) -> None:
    new = ModelConfig(name="new", path="org/beta", aliases=("alias",))
    reconfigure(gateway, new, gateway.fleet.resolve("alpha"))
    assert [model["id"] for model in (await gateway.get("/v1/models")).json["data"]] == ["new", "alpha"]
    assert [model["name"] for model in (await gateway.get("/api/status")).json["models"]] == ["new", "alpha"]
    assert (await gateway.get("/v1/models/alias")).json["id"] == "new"
    assert (await gateway.chat(model="alias")).status == 200
    missing = await gateway.chat(model="org/beta")
    assert (missing.status, missing.error["code"]) == (404, "model_not_found")


async def test_who_waits_for_a_removed_model_gets_a_404(gateway: Gateway) -> None:
    gateway.alpha.may_wake.clear()
    whole, stream = gateway.start_chat(), gateway.start_chat(stream=True)
    await until(lambda: gateway.in_flight() == 2)
    reconfigure(gateway, gateway.fleet.resolve("org/beta"))
    for call in (whole, stream):
        reply = await call.reply()
        assert (reply.status, reply.error["code"]) == (404, "model_not_found")
        assert reply.error["param"] == "model"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("begun", [False, True])
async def test_who_waits_for_a_replaced_model_is_served_by_the_new_one(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, stream: bool, begun: bool
) -> None:
    if begun:
        monkeypatch.setattr(sse, "HOLD_BACK", 0.0)
    gateway.alpha.may_wake.clear()
    gateway.beta.chat_template = "new: {{ messages[0].content }}"
    gateway.beta.pieces = ["from ", "beta"]
    call = gateway.start_chat("hello", stream=stream)
    await until(lambda: gateway.in_flight() == 1)
    if stream and begun:
        assert (await call.start()).status == 200
    replaced(gateway)
    if stream and begun:
        body = b"".join([chunk async for chunk in call.chunks()]).decode()
        assert "from " in body and "beta" in body and body.endswith("data: [DONE]\n\n")
        await call.ended()
    else:
        reply = await call.reply()
        assert reply.status == 200
        assert "beta" in reply.body.decode()
    assert [bytes(request.prompt_ids).decode() for request in gateway.beta.requests] == ["new: hello"]
    assert not gateway.alpha.requests


async def test_who_waits_for_a_replaced_model_is_held_to_its_limits(gateway: Gateway) -> None:
    gateway.alpha.may_wake.clear()
    gateway.beta.max_model_len = 10
    call = gateway.start_chat("hello")
    await until(lambda: gateway.in_flight() == 1)
    replaced(gateway)
    reply = await call.reply()
    assert (reply.status, reply.error["code"]) == (400, "context_length_exceeded")


async def test_embeddings_are_of_the_new_model(gateway: Gateway) -> None:
    kind: Kind = "embed"
    for script in (gateway.alpha, gateway.beta):
        script.kind, script.embedding_size = kind, 2
    gateway.alpha.may_wake.clear()
    call = gateway.call("POST", "/v1/embeddings", json_body={"model": "alpha", "input": "hello"})
    await until(lambda: gateway.in_flight() == 1)
    replaced(gateway)
    reply = await call.reply()
    assert (reply.status, reply.json["model"]) == (200, "alpha")
    assert len(gateway.beta.embedded) == 1
    assert not gateway.alpha.embedded


async def test_new_sampling_defaults_and_templates_need_no_wake(gateway: Gateway) -> None:
    await gateway.chat()
    alpha = gateway.fleet.resolve("alpha")
    new = replace(alpha, sampling={"top_k": 7}, chat_template="T: {{ messages[0].content }}")
    reconfigure(gateway, new)
    await gateway.chat("hello")
    last = gateway.alpha.requests[-1]
    assert (last.sampling.top_k, bytes(last.prompt_ids)) == (7, b"T: hello")
    assert gateway.alpha.wakes == 1


async def test_new_keys_hold_at_once() -> None:
    async with running(ServerConfig(api_keys=("old",))) as gateway:
        reconfigure(gateway, api_keys=("new",), admin_keys=("admin",))
        for path, key, status in (
            ("/v1/models", "old", 401),
            ("/v1/models", "new", 200),
            ("/v1/models", "admin", 200),
        ):
            assert (await gateway.get(path, headers={"x-api-key": key})).status == status
        assert (await gateway.post("/wake_up?model=alpha", headers={"x-api-key": "new"})).status == 401
        reconfigure(gateway, api_keys=(), admin_keys=())
        assert (await gateway.get("/v1/models")).status == 200
        assert (await gateway.get("/v1/models", headers={"host": "evil.example"})).status == 403


async def test_new_origins_hold_at_once(gateway: Gateway) -> None:
    page = {"origin": "https://page.example"}
    assert (await gateway.get("/v1/models", headers=page)).status == 403
    reconfigure(gateway, cors_origins=("https://page.example",))
    reply = await gateway.get("/v1/models", headers=page)
    assert reply.headers["access-control-allow-origin"] == "https://page.example"
