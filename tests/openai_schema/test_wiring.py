"""A wrong answer fails the test that causes it, whichever way it asks; and no test asks another way."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from litestar.types import Receive, Scope, Send

from gateway.api.asgi import JSON, send_body, send_start, send_whole
from tests.gateway.api.caller import Caller
from tests.gateway.api.conftest import running
from tests.openai_schema import answers
from tests.openai_schema.answers import CHAT
from tests.openai_schema.clients import async_http_client, async_openai_client, http_client, openai_client
from tests.openai_schema.exchange import Exchange
from tests.openai_schema.validate import Violation

MESSAGES: Any = [{"role": "user", "content": "hello"}]
TESTS = Path(__file__).parents[1]


def wrong(answer: dict[str, Any]) -> dict[str, Any]:
    """Such as another server would send."""
    if "error" in answer:
        answer["error"]["code"] = 500
    else:
        answer["choices"][0]["finish_reason"] = "eos"
    return answer


def events(*chunks: dict[str, Any]) -> bytes:
    blocks = [": waiting\n\n", *(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks), "data: [DONE]\n\n"]
    return "".join(blocks).encode()


class Liar:
    """Answers anything with what it is told to."""

    url: str
    status: int
    content_type: str
    pieces: list[bytes]
    """Of the body. All but the first wait until they ``may_follow``."""
    asked = 0

    def __init__(self) -> None:
        self.may_follow = threading.Event()

    def says(self, answer: dict[str, Any], status: int = 200) -> None:
        self.status, self.content_type = status, "application/json"
        self.pieces = [json.dumps(answer).encode()]

    def streams(self, *pieces: bytes) -> None:
        self.status, self.content_type = 200, "text/event-stream; charset=utf-8"
        self.pieces = list(pieces)


@pytest.fixture
def liar() -> Iterator[Liar]:
    liar = Liar()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            liar.asked += 1
            self.send_response(liar.status)
            self.send_header("content-type", liar.content_type)
            self.end_headers()
            for number, piece in enumerate(liar.pieces):
                assert number == 0 or liar.may_follow.wait(10)
                self.wfile.write(piece)

        def log_message(self, *_: object) -> None:
            """Nothing is logged."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        liar.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield liar
        server.shutdown()
        thread.join()


def ask_httpx(url: str, stream: bool) -> None:
    body = {"model": "m", "messages": MESSAGES, "stream": stream}
    with http_client() as client, client.stream("POST", f"{url}{CHAT}", json=body) as response:
        for _ in response.iter_lines():
            pass


def ask_sdk(url: str, stream: bool) -> None:
    with openai_client(url, max_retries=1) as client:
        answer = client.chat.completions.create(model="m", messages=MESSAGES, stream=stream)
        for _ in answer if stream else ():
            pass


async def ask_httpx_async(url: str, stream: bool) -> None:
    body = {"model": "m", "messages": MESSAGES, "stream": stream}
    async with async_http_client() as client, client.stream("POST", f"{url}{CHAT}", json=body) as response:
        async for _ in response.aiter_lines():
            pass


async def ask_sdk_async(url: str, stream: bool) -> None:
    async with async_openai_client(url, max_retries=1) as client:
        answer: Any = await client.chat.completions.create(model="m", messages=MESSAGES, stream=stream)
        if stream:
            async for _ in answer:
                pass


WAYS = [ask_httpx, ask_sdk, ask_httpx_async, ask_sdk_async]


async def ask(way: Callable[..., Any], liar: Liar, *, stream: bool = False) -> None:
    if asking := way(liar.url, stream):
        await asking


@pytest.mark.parametrize("way", WAYS)
async def test_clients_let_what_is_right_pass(liar: Liar, way: Callable[..., Any]) -> None:
    liar.says(answers.chat())
    await ask(way, liar)
    liar.streams(events(answers.chunk(), answers.chunk()))
    await ask(way, liar, stream=True)


@pytest.mark.parametrize("way", WAYS)
async def test_clients_refuse_what_is_wrong(liar: Liar, way: Callable[..., Any]) -> None:
    liar.says(wrong(answers.chat()))
    with pytest.raises(Violation, match="finish_reason"):
        await ask(way, liar)
    liar.says(wrong(answers.error()), 400)
    with pytest.raises(Violation, match=r"error\.code"):
        await ask(way, liar)
    assert liar.asked == 2, "no client takes it for a reason to try again"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (events(answers.chunk(), wrong(answers.chunk())), "finish_reason"),
        (events(answers.chunk(), wrong(answers.error())), r"error\.code"),
        (b'data: {"id": \n\n', "no JSON"),
        (b"event: answer\n\n", "no event"),
        (b"data: [DONE]\n", "cut"),
    ],
)
async def test_clients_refuse_events_that_are_wrong(
    liar: Liar, way: Callable[..., Any], body: bytes, complaint: str
) -> None:
    liar.streams(body)
    with pytest.raises(Violation, match=complaint):
        await ask(way, liar, stream=True)


def test_events_are_passed_on_as_they_come(liar: Liar) -> None:
    first, second = events(answers.chunk(), wrong(answers.chunk())).split(b"\n\n")[1:3]
    liar.streams(first + b"\n\n", second + b"\n\n")
    seen = 0
    with openai_client(liar.url) as client, pytest.raises(Violation):
        for _ in client.chat.completions.create(model="m", messages=MESSAGES, stream=True):
            seen += 1
            liar.may_follow.set()
    assert seen == 1


@pytest.mark.parametrize("fault", ["whole", "event", "error"])
async def test_the_caller_refuses_what_is_wrong_read_or_not(fault: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if fault == "event":
            await send_start(send, 200, {"content-type": "text/event-stream"})
            await send_body(send, events(wrong(answers.chunk())), more_body=False)
        elif fault == "whole":
            await send_whole(send, 200, json.dumps(wrong(answers.chat())).encode(), JSON)
        else:
            await send_whole(send, 503, json.dumps(wrong(answers.error())).encode(), JSON)

    caller = Caller(app)
    with pytest.raises(Violation):
        await caller.chat()
    with pytest.raises(Violation):
        await caller.start_chat().ended()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_fault_of_the_gateway_comes_through_all_its_layers(stream: bool) -> None:
    async with running() as gateway:
        gateway.alpha.finish_reason = "eos"  # type: ignore[assignment]
        with pytest.raises(Violation, match="finish_reason"):
            await gateway.chat(stream=stream)


def test_events_may_be_cut_anywhere() -> None:
    def feed(body: bytes) -> None:
        exchange = Exchange("POST", CHAT, b"{}")
        exchange.begin(200, "text/event-stream")
        for byte in body:
            exchange.feed(bytes([byte]))
        exchange.end()

    feed(events(answers.chunk(), answers.chunk()))
    with pytest.raises(Violation):
        feed(events(answers.chunk(), wrong(answers.chunk())))


@pytest.mark.parametrize("directory", ["e2e", "gateway"])
def test_no_test_makes_a_client_that_does_not_check(directory: str) -> None:
    made = re.compile(
        r"\bhttpx2?\.(get|post|put|delete|request|stream|Client|AsyncClient)\(|\b(Async)?OpenAI\("
    )
    for file in sorted((TESTS / directory).rglob("*.py")):
        found = made.search(file.read_text())
        assert not found, f"{file.name} makes a client of its own: {found[0]}"
