"""HTTP clients that check all they are answered: what a test speaks to a server with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import httpx2
from openai import AsyncOpenAI, DefaultAsyncHttpxClient, DefaultHttpxClient, OpenAI

from tests.openai_schema.exchange import Exchange

Response = httpx.Response | httpx2.Response
"""Of httpx, or of its successor, which OpenAI's client speaks through."""


def http_client(**options: Any) -> httpx.Client:
    return httpx.Client(event_hooks={"response": [_check]}, **options)


def async_http_client(**options: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(event_hooks={"response": [_check_async]}, **options)


def openai_client(url: str, key: str = "none", **options: Any) -> OpenAI:
    """For the server at ``url``. Without retries, unless the options say otherwise."""
    client = DefaultHttpxClient(event_hooks={"response": [_check]})
    return OpenAI(base_url=f"{url}/v1", api_key=key, http_client=client, **{"max_retries": 0, **options})


def async_openai_client(url: str, key: str = "none", **options: Any) -> AsyncOpenAI:
    client = DefaultAsyncHttpxClient(event_hooks={"response": [_check_async]})
    return AsyncOpenAI(base_url=f"{url}/v1", api_key=key, http_client=client, **{"max_retries": 0, **options})


class _Stream(httpx.SyncByteStream, httpx2.SyncByteStream):
    """Passes on what has been found good."""

    def __init__(self, stream: Any, exchange: Exchange) -> None:
        self._stream = stream
        self._exchange = exchange

    def __iter__(self) -> Iterator[bytes]:
        for data in self._stream:
            self._exchange.feed(data)
            yield data
        self._exchange.end()

    def close(self) -> None:
        self._stream.close()


class _AsyncStream(httpx.AsyncByteStream, httpx2.AsyncByteStream):
    def __init__(self, stream: Any, exchange: Exchange) -> None:
        self._stream = stream
        self._exchange = exchange

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for data in self._stream:
            self._exchange.feed(data)
            yield data
        self._exchange.end()

    async def aclose(self) -> None:
        await self._stream.aclose()


def _check(response: Response) -> None:
    response.stream = _Stream(response.stream, _begun(response))


async def _check_async(response: Response) -> None:
    response.stream = _AsyncStream(response.stream, _begun(response))


def _begun(response: Response) -> Exchange:
    request = response.request
    try:
        body = request.content
    except (httpx.RequestNotRead, httpx2.RequestNotRead):  # it was sent in pieces
        body = b""
    exchange = Exchange(request.method, request.url.path, body)
    exchange.begin(response.status_code, response.headers.get("content-type", ""))
    return exchange
