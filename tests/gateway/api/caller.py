"""Speaks ASGI to the application by hand, so that a test decides when the client sends, reads and leaves.

All that the application sends is checked against OpenAI's schema, whether the test reads it or not.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from litestar.types import ASGIApp, Message

from tests.openai_schema.exchange import Exchange

PATIENCE = 10.0


async def until(condition: Callable[[], bool], *, patience: float = PATIENCE) -> None:
    async with asyncio.timeout(patience):
        while not condition():  # noqa: ASYNC110 conditions are of the gateway, which tells nobody
            await asyncio.sleep(0.001)


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error object, whose shape is checked."""
        assert self.headers["content-type"] == "application/json"
        assert self.json.keys() == {"error"}
        error: dict[str, Any] = self.json["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert isinstance(error["message"], str) and isinstance(error["type"], str)
        assert isinstance(error["param"], str | None) and isinstance(error["code"], str | None)
        return error

    @property
    def events(self) -> list[Any]:
        """The data of a stream, decoded; ``[DONE]`` as it is. Comments are left out."""
        blocks = self.body.decode().split("\n\n")
        assert blocks.pop() == "", "the last event is cut"
        data = [block.removeprefix("data: ") for block in blocks if not block.startswith(":")]
        return [item if item == "[DONE]" else json.loads(item) for item in data]

    @property
    def comments(self) -> list[str]:
        return [line for line in self.body.decode().splitlines() if line.startswith(":")]


class Call:
    """One request under way."""

    def __init__(self, app: ASGIApp, scope: dict[str, Any], body: Iterable[bytes], abort: bool) -> None:
        self._exchange = Exchange(scope["method"], scope["path"], b"".join(body))
        self._received: asyncio.Queue[Message] = asyncio.Queue()
        self._sent: asyncio.Queue[Message] = asyncio.Queue()
        self._reading = asyncio.Event()
        self._reading.set()
        for chunk in body:
            self._received.put_nowait({"type": "http.request", "body": chunk, "more_body": True})
        if not abort:
            self._received.put_nowait({"type": "http.request", "body": b"", "more_body": False})
        self.task = asyncio.create_task(app(scope, self._receive, self._send))  # type: ignore[arg-type]

    async def _receive(self) -> Message:
        return await self._received.get()

    async def _send(self, message: Message) -> None:
        await self._reading.wait()
        self._check(message)
        self._sent.put_nowait(message)
        if message["type"] == "http.response.body" and not message["more_body"]:
            self.leave()  # uvicorn reports the end of an answer as a disconnect, too

    def _check(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = dict(message["headers"])
            self._exchange.begin(message["status"], headers.get(b"content-type", b"").decode())
        elif message["type"] == "http.response.body":
            self._exchange.feed(message["body"])
            if not message["more_body"]:
                self._exchange.end()

    def leave(self) -> None:
        self._received.put_nowait({"type": "http.disconnect"})

    def stop_reading(self) -> None:
        self._reading.clear()

    async def sent(self) -> Message:
        """The next message of the server."""
        async with asyncio.timeout(PATIENCE):
            getting = asyncio.create_task(self._sent.get())
            await asyncio.wait({getting, self.task}, return_when=asyncio.FIRST_COMPLETED)
            if not getting.done() and self._sent.empty():
                getting.cancel()
                await self.task
                raise AssertionError("the server ended the call without answering to its end")
            return await getting

    async def chunks(self) -> AsyncIterator[bytes]:
        more = True
        while more:
            message = await self.sent()
            assert message["type"] == "http.response.body"
            more = message["more_body"]
            yield message["body"]

    async def start(self) -> Reply:
        """Status and headers, as soon as they come."""
        message = await self.sent()
        assert message["type"] == "http.response.start"
        names = [name.decode() for name, _ in message["headers"]]
        assert len(set(names)) == len(names), f"a header twice: {names}"
        headers = {name.decode(): value.decode() for name, value in message["headers"]}
        return Reply(message["status"], headers, b"")

    async def reply(self) -> Reply:
        """The whole answer."""
        start = await self.start()
        body = b"".join([chunk async for chunk in self.chunks()])
        await self.ended()
        if "content-length" in start.headers:
            assert int(start.headers["content-length"]) == len(body)
        return Reply(start.status, start.headers, body)

    async def ended(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await self.task


@dataclass
class Caller:
    """Makes calls to one application."""

    app: ASGIApp

    def call(
        self,
        method: str,
        url: str,
        *,
        json_body: Any = None,
        body: bytes | Iterable[bytes] = b"",
        headers: Mapping[str, str] | None = None,
        leaves_in_body: bool = False,
    ) -> Call:
        """Begin a call. A ``headers`` value of "" leaves that header out."""
        sent = {"host": "127.0.0.1:8000", "content-type": "application/json", **(headers or {})}
        if json_body is not None:
            body = json.dumps(json_body).encode()
        chunks = [body] if isinstance(body, bytes) else list(body)
        parts = urlsplit(url)
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(parts.path),
            "raw_path": parts.path.encode(),
            "query_string": parts.query.encode(),
            "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in sent.items() if value],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8000),
        }
        call = Call(self.app, scope, chunks, leaves_in_body)
        if leaves_in_body:
            call.leave()
        return call

    async def get(self, url: str, **options: Any) -> Reply:
        return await self.call("GET", url, **options).reply()

    async def post(self, url: str, json_body: Any = None, **options: Any) -> Reply:
        return await self.call("POST", url, json_body=json_body, **options).reply()

    async def chat(self, content: str = "hello", **fields: Any) -> Reply:
        return await self.start_chat(content, **fields).reply()

    def start_chat(self, content: str = "hello", **fields: Any) -> Call:
        return self.call("POST", "/v1/chat/completions", json_body=chat_body(content, **fields))


def chat_body(content: str = "hello", **fields: Any) -> dict[str, Any]:
    return {"model": "alpha", "messages": [{"role": "user", "content": content}], **fields}
