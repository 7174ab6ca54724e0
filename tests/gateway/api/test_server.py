"""Over real sockets and uvicorn: what only a server shows."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import openai
import pytest
import uvicorn

from gateway.config import ServerConfig
from tests.gateway.api.caller import chat_body, until
from tests.gateway.api.conftest import Gateway, build, running
from tests.openai_schema.clients import async_http_client, async_openai_client


@asynccontextmanager
async def serving(gateway: Gateway) -> AsyncIterator[int]:
    """The port that it listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(gateway.app, log_config=None, lifespan="off", ws="none")
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await task


async def test_the_openai_client(gateway: Gateway) -> None:
    async with serving(gateway) as port, async_openai_client(f"http://127.0.0.1:{port}") as client:
        assert [model.id async for model in client.models.list()] == ["alpha", "org/beta"]
        assert (await client.models.retrieve("org/beta")).id == "org/beta"
        answer = await client.chat.completions.create(
            model="alpha", messages=[{"role": "user", "content": "hello"}]
        )
        assert answer.choices[0].message.content == "Hello!"
        stream = await client.chat.completions.create(
            model="alpha",
            messages=[{"role": "user", "content": "hello"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == "Hello!"
        assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == 4
        completion = await client.completions.create(model="alpha", prompt="hello")
        assert completion.choices[0].text == "Hello!"
        with pytest.raises(openai.NotFoundError) as caught:
            await client.completions.create(model="nobody", prompt="hello")
        assert caught.value.code == "model_not_found"


async def test_a_client_that_stops_reading_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    async with running(ServerConfig(stall_timeout=0.1)) as gateway, serving(gateway) as port:
        gateway.alpha.pieces = ["x" * 100_000] * 1000
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1000)
        body = json.dumps(chat_body(stream=True)).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        await until(lambda: bool(gateway.alpha.requests) and not gateway.in_flight())
        async with asyncio.timeout(5):
            rest = await reader.read()
            assert len(rest) < 50_000_000 and not rest.endswith(b"0\r\n\r\n")
        writer.close()
        await writer.wait_closed()
    assert not caplog.records


async def test_clients_that_leave_leave_no_trace(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with serving(gateway) as port, async_http_client(base_url=f"http://127.0.0.1:{port}") as client:
        gateway.alpha.may_step.clear()
        for stream in (False, True):
            calls = [
                asyncio.create_task(client.post("/v1/chat/completions", json=chat_body(stream=stream)))
                for _ in range(10)
            ]
            await until(lambda: gateway.alpha.running == 10)
            for call in calls:
                call.cancel()
            await until(lambda: not gateway.in_flight() and not gateway.alpha.running, patience=1)
        gateway.alpha.may_step.set()
        assert (await client.post("/v1/chat/completions", json=chat_body())).status_code == 200
    assert not caplog.records


async def test_the_application_starts_and_closes_its_fleet() -> None:
    gateway = build(preload=True)
    async with gateway.app.lifespan():
        await until(lambda: gateway.fleet.ready)
        assert not gateway.fleet.is_sleeping("alpha")
    assert gateway.fleet.draining
