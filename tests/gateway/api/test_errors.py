"""The rows of the error table that need no server of their own."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest

from engine import CheckpointError
from gateway.config import ServerConfig
from tests.gateway.api.caller import chat_body, until
from tests.gateway.api.conftest import Gateway, running

CHAT = "/v1/chat/completions"


@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
async def test_unknown_model(gateway: Gateway, path: str) -> None:
    reply = await gateway.post(path, {**chat_body(), "model": "nobody", "prompt": "a"})
    assert reply.status == 404
    assert (reply.error["code"], reply.error["param"]) == ("model_not_found", "model")
    assert "alpha" in reply.error["message"] and "org/beta" in reply.error["message"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"nonsense", b"[]", b'"text"', b"null", b"1", b"\xff", b'{"model": "\xff"}', b"[" * 100_000],
)
async def test_a_body_that_is_no_json_object(gateway: Gateway, body: bytes) -> None:
    reply = await gateway.call("POST", CHAT, body=body).reply()
    assert reply.status == 400
    assert (reply.error["type"], reply.error["param"]) == ("invalid_request_error", "body")


async def test_deep_nesting_is_refused(gateway: Gateway) -> None:
    body = b'{"model": "alpha", "x": ' + b"[" * 100_000
    reply = await gateway.call("POST", CHAT, body=body).reply()
    assert (reply.status, reply.error["param"]) == (400, "body")


@pytest.mark.parametrize("depth", [500, 2_000, 50_000])
async def test_deep_nesting_within_a_text_is_no_error_of_the_server(gateway: Gateway, depth: int) -> None:
    gateway.alpha.max_model_len = 300_000
    arguments = '{"a": ' + "[" * depth + "]" * depth + "}"
    call = {"function": {"name": "f", "arguments": arguments}}
    reply = await gateway.chat(messages=[{"role": "assistant", "tool_calls": [call]}])
    assert reply.status in (200, 400), reply.body


async def test_deep_nesting_within_a_schema_is_refused(gateway: Gateway) -> None:
    reply = await gateway.chat(guided_json="[" * 100_000)
    assert (reply.status, reply.error["param"]) == (400, "guided_json")


@pytest.mark.parametrize("depth", [300, 600, 900, 950, 1000])
async def test_a_deep_schema_is_refused(gateway: Gateway, depth: int) -> None:
    deep: dict[str, Any] = {}
    for _ in range(depth):
        deep = {"not": deep}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"items": deep}}}
    for fields in (
        {"guided_json": encoded(deep)},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": deep}}},
        {"tools": [tool], "tool_choice": "required"},
    ):
        reply = await gateway.call("POST", CHAT, body=encoded(chat_body(**fields)).encode()).reply()
        assert reply.status == 200 or (reply.status == 400 and reply.error["param"]), depth


def encoded(value: Any) -> str:
    """By Python, which goes deeper when it may."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    try:
        return json.dumps(value)
    finally:
        sys.setrecursionlimit(limit)


async def test_another_content_type_is_refused(gateway: Gateway) -> None:
    reply = await gateway.post(CHAT, chat_body(), headers={"content-type": "text/plain"})
    assert (reply.status, reply.error["param"]) == (400, "content-type")
    for fine in ("", "application/json; charset=utf-8", "Application/JSON"):
        assert (await gateway.post(CHAT, chat_body(), headers={"content-type": fine})).status == 200


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "GZIP, identity"])
async def test_a_body_that_is_compressed_is_told_so(gateway: Gateway, encoding: str) -> None:
    headers = {"content-encoding": encoding}
    reply = await gateway.call("POST", CHAT, body=b"\x1f\x8b", headers=headers).reply()
    assert (reply.status, reply.error["param"]) == (400, "content-encoding")
    assert "content-encoding" in reply.error["message"]


async def test_an_encoding_that_is_none(gateway: Gateway) -> None:
    for encoding in ("identity", "Identity"):
        assert (await gateway.post(CHAT, chat_body(), headers={"content-encoding": encoding})).status == 200


async def test_a_byte_order_mark_is_skipped(gateway: Gateway) -> None:
    reply = await gateway.call("POST", CHAT, body=b"\xef\xbb\xbf" + encoded(chat_body()).encode()).reply()
    assert reply.status == 200


@pytest.mark.parametrize(
    ("text", "half"),
    [
        (r"\ud800", True),
        (r"a\uDBFF b", True),
        (r"\udc00", True),
        (r"\ud83d\ud83d\ude00", True),
        (r"\\\ud800", True),
        (r"\ud83d\ude00", False),
        (r"\\ud800", False),
        (r"\u0041", False),
    ],
)
async def test_half_a_surrogate_pair_is_told_of(gateway: Gateway, text: str, half: bool) -> None:
    body = encoded(chat_body("@")).replace("@", text).encode()
    reply = await gateway.call("POST", CHAT, body=body).reply()
    assert reply.status == (400 if half else 200)
    assert not half or (reply.error["param"] == "body" and "surrogate" in reply.error["message"])
    broken = (await gateway.call("POST", CHAT, body=body[:-1]).reply()).error["message"]
    assert ("surrogate" in broken) == half


async def test_a_body_too_large() -> None:
    async with running(ServerConfig(max_body=100)) as gateway:
        announced = await gateway.post(CHAT, chat_body(), headers={"content-length": "101"})
        chunked = await gateway.call("POST", CHAT, body=[b"x" * 40] * 3).reply()
        for reply in (announced, chunked):
            assert (reply.status, reply.error["code"]) == (413, "body_too_large")
        assert (await gateway.post(CHAT, chat_body())).status == 200


async def test_what_is_quoted_in_an_error_is_cut(gateway: Gateway) -> None:
    for field in ("model", "keep_alive"):
        reply = await gateway.post(CHAT, chat_body(**{field: "\0" * 100_000}))
        assert reply.status in (400, 404) and reply.error["param"] == field
        assert len(reply.body) < 32_000


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("POST", "/v1/responses", 404), ("GET", CHAT, 405), ("POST", "/health", 405)],
)
async def test_no_such_route(gateway: Gateway, method: str, path: str, status: int) -> None:
    reply = await gateway.call(method, path).reply()
    assert reply.status == status
    assert reply.error["type"] == "invalid_request_error"
    assert "x-request-id" in reply.headers


async def test_a_host_that_is_none() -> None:
    async with running(ServerConfig(api_keys=("sesame",))) as gateway:
        reply = await gateway.get("/health", headers={"host": "no host"})
        assert (reply.status, reply.error["param"]) == (400, "host")


async def test_another_method_is_told_which_there_are(gateway: Gateway) -> None:
    assert {*(await gateway.get(CHAT)).headers["allow"].split(", ")} == {"POST", "OPTIONS"}
    assert {*(await gateway.post("/health")).headers["allow"].split(", ")} == {"GET", "OPTIONS"}


async def test_queue_full() -> None:
    async with running(max_waiting=1) as gateway:
        gateway.alpha.may_wake.clear()
        waiting = gateway.start_chat()
        await until(lambda: gateway.in_flight() == 1)
        reply = await gateway.chat()
        assert (reply.status, reply.error["code"]) == (429, "queue_full")
        assert int(reply.headers["retry-after"]) >= 1
        gateway.alpha.may_wake.set()
        assert (await waiting.reply()).status == 200


async def test_wait_timeout() -> None:
    async with running(max_wait=0.05) as gateway:
        gateway.alpha.may_wake.clear()
        reply = await gateway.chat()
        assert (reply.status, reply.error["code"]) == (503, "wait_timeout")
        assert int(reply.headers["retry-after"]) >= 1
        gateway.alpha.may_wake.set()


async def test_wait_timeout_while_it_is_opened() -> None:
    async with running(max_wait=0.05) as gateway:
        gateway.alpha.may_open.clear()
        reply = await gateway.chat()
        assert (reply.status, reply.error["code"]) == (503, "wait_timeout")
        gateway.alpha.may_open.set()


async def test_a_checkpoint_that_cannot_be_opened() -> None:
    async with running() as gateway:
        failure = CheckpointError("/secret/config.json is not there", reason="its files are gone")
        gateway.beta.failures["open"].append(failure)
        reply = await gateway.chat(model="org/beta")
        assert (reply.status, reply.error["code"]) == (503, "model_wake_failed")
        assert int(reply.headers["retry-after"]) >= 1
        assert "its files are gone" in reply.error["message"] and "secret" not in reply.error["message"]


@pytest.mark.parametrize("stream", [False, True])
async def test_shutting_down(gateway: Gateway, stream: bool) -> None:
    await gateway.fleet.drain()
    reply = await gateway.chat(stream=stream)
    assert (reply.status, reply.error["code"]) == (503, "shutting_down")
    assert (await gateway.get("/ready")).error["code"] == "shutting_down"
    assert (await gateway.get("/health")).status == 200


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("how", ["model_asleep", "shutting_down"])
async def test_a_request_that_is_cut_may_come_again(gateway: Gateway, how: str, stream: bool) -> None:
    gateway.alpha.may_step.clear()
    call = gateway.start_chat(stream=stream)
    await until(lambda: gateway.alpha.running == 1)
    if how == "model_asleep":
        assert (await gateway.post("/sleep?model=alpha&mode=abort")).status == 200
    else:
        gateway.fleet.abort()
    reply = await call.reply()
    assert (reply.status, reply.error["code"]) == (503, how)
    assert int(reply.headers["retry-after"]) >= 1


@pytest.mark.parametrize("stream", [False, True])
async def test_an_unexpected_failure_is_logged_and_tells_nothing(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, stream: bool
) -> None:
    def broken(name: str) -> Any:
        raise ZeroDivisionError("at /root/secret")

    monkeypatch.setattr(gateway.fleet, "resolve", broken)
    reply = await gateway.chat(stream=stream)
    assert reply.status == 500
    assert reply.error["type"] == "server_error"
    assert "secret" not in reply.error["message"]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_request_ids(gateway: Gateway) -> None:
    sent = {"x-request-id": "my-id.1"}
    for path in ("/health", "/nowhere", "/v1/models/nobody"):
        assert (await gateway.get(path, headers=sent)).headers["x-request-id"] == "my-id.1"
    assert (await gateway.chat()).headers["x-request-id"] != (await gateway.chat()).headers["x-request-id"]
    long = {"x-request-id": "x" * 129}
    assert len((await gateway.get("/health", headers=long)).headers["x-request-id"]) == 32
