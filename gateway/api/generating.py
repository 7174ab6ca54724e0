"""How a request for tokens is answered, whatever its endpoint: prepare, lease, generate, send.

An endpoint makes a ``Job`` of its request, which needs no weights and wakes nothing; this module takes the
lease and keeps it around the sending, streamed or not. The answer's shape is the endpoint's ``AnswerFormat``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Protocol

import msgspec
from litestar.types import Receive, Scope, Send
from msgspec import UNSET, Struct

from engine import Delta, FinishReason, GenerateRequest
from gateway.api import sse
from gateway.api.asgi import JSON
from gateway.api.client import Client, ClientGone
from gateway.api.errors import as_api_error, error_json
from gateway.api.schema.generation import ChunkUsage, StreamOptions, Usage
from gateway.fleet import Fleet, Lease


@dataclass(slots=True)
class Choice:
    """One choice of an answer that is not streamed, as far as it has come."""

    pieces: list[str] = field(default_factory=list)
    finish_reason: FinishReason = "stop"

    @property
    def text(self) -> str:
        return "".join(self.pieces)


class AnswerFormat(Protocol):
    """The wire shape of one answer."""

    def opening(self, usage: ChunkUsage) -> Iterable[Struct]:
        """Chunks that come before the first token."""

    def chunks(self, delta: Delta, usage: ChunkUsage) -> Iterable[Struct]: ...

    def usage_chunk(self, usage: Usage) -> Struct: ...

    def whole(self, choices: list[Choice], usage: Usage) -> Struct: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A request that has been found good, ready for the engine: one choice for each of ``requests``."""

    model: str
    requests: tuple[GenerateRequest, ...]
    format: AnswerFormat
    stream: bool
    stream_options: StreamOptions
    keep_alive: float | None


@dataclass(slots=True)
class Progress:
    """What has come so far: counts for ``usage``, times for ``Server-Timing``."""

    job: Job
    lease: Lease
    completion_tokens: int = 0
    leased_at: float = field(default_factory=time.monotonic)
    prefill_seconds: float | None = None

    def count(self, deltas: list[Delta]) -> None:
        if self.prefill_seconds is None:
            self.prefill_seconds = time.monotonic() - self.leased_at
        self.completion_tokens += sum(len(delta.token_ids) for delta in deltas)

    @property
    def usage(self) -> Usage:
        prompt_tokens = sum(len(request.prompt_ids) for request in self.job.requests)
        return Usage(
            prompt_tokens=prompt_tokens,
            completion_tokens=self.completion_tokens,
            total_tokens=prompt_tokens + self.completion_tokens,
        )

    @property
    def chunk_usage(self) -> ChunkUsage:
        options = self.job.stream_options
        if options.continuous_usage_stats:
            return self.usage
        return None if options.include_usage else UNSET

    @property
    def server_timing(self) -> str:
        seconds = {
            "queue": self.lease.queue_seconds,
            "wake": self.lease.wake_seconds,
            "prefill": self.prefill_seconds or 0.0,
        }
        return ", ".join(f"{name};dur={value * 1000:.1f}" for name, value in seconds.items())


class Generating:
    """The ASGI app that a generating handler returns: it runs in place of a response."""

    def __init__(self, prepare: Callable[[], Awaitable[Job]], fleet: Fleet, *, stall_timeout: float) -> None:
        self._prepare = prepare
        self._fleet = fleet
        self._stall_timeout = stall_timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = Client(scope, receive, send, stall_timeout=self._stall_timeout)
        await client.serve(self._answer(client))

    async def _answer(self, client: Client) -> None:
        job = await self._prepare()
        answer = _stream if job.stream else _answer_whole
        await answer(client, self._fleet, job)


async def _answer_whole(client: Client, fleet: Fleet, job: Job) -> None:
    async with fleet.lease(job.model, keep_alive=job.keep_alive) as lease:
        progress = Progress(job, lease)
        choices = [Choice() for _ in job.requests]
        async with aclosing(_generate(lease, job.requests)) as steps:
            async for deltas in steps:
                progress.count(deltas)
                _collect(choices, deltas)
        body = msgspec.json.encode(job.format.whole(choices, progress.usage))
        await client.respond(200, body, {**JSON, "server-timing": progress.server_timing})


async def _stream(client: Client, fleet: Fleet, job: Job) -> None:
    async with sse.EventStream(client) as events:
        try:
            async with fleet.lease(job.model, keep_alive=job.keep_alive) as lease:
                await _send_events(events, Progress(job, lease))
        except ClientGone:
            raise
        except Exception as error:
            if not events.started:
                raise
            await events.fail(error_json(as_api_error(error)))


async def _send_events(events: sse.EventStream, progress: Progress) -> None:
    job = progress.job
    async with aclosing(_generate(progress.lease, job.requests)) as steps:
        first: list[Delta] = await anext(steps, [])
        progress.count(first)
        told_timing = await events.begin({"server-timing": progress.server_timing})
        opening = _encode(job.format.opening(progress.chunk_usage))
        await events.write(opening + _encode_step(progress, first))
        async for deltas in steps:
            progress.count(deltas)
            if encoded := _encode_step(progress, deltas):
                await events.write(encoded)
    ending = b""
    if job.stream_options.include_usage:
        ending += _encode([job.format.usage_chunk(progress.usage)])
    if not told_timing:
        ending += sse.comment(f"server-timing {progress.server_timing}")
    await events.end(ending)


def _encode_step(progress: Progress, deltas: list[Delta]) -> bytes:
    usage = progress.chunk_usage
    return b"".join(_encode(progress.job.format.chunks(delta, usage)) for delta in deltas)


def _encode(chunks: Iterable[Struct]) -> bytes:
    return b"".join(sse.data(msgspec.json.encode(chunk)) for chunk in chunks)


def _collect(choices: list[Choice], deltas: list[Delta]) -> None:
    for delta in deltas:
        choice = choices[delta.index]
        choice.pieces.append(delta.text)
        if delta.finish_reason is not None:
            choice.finish_reason = delta.finish_reason


def _generate(lease: Lease, requests: tuple[GenerateRequest, ...]) -> AsyncGenerator[list[Delta]]:
    return lease.generate(requests[0]) if len(requests) == 1 else _merged(lease, requests)


async def _merged(lease: Lease, requests: tuple[GenerateRequest, ...]) -> AsyncGenerator[list[Delta]]:
    """Several prompts at once, each delta with the index of its prompt."""
    arrived: asyncio.Queue[list[Delta] | Exception | None] = asyncio.Queue()

    async def run(index: int, request: GenerateRequest) -> None:
        try:
            async with aclosing(lease.generate(request)) as steps:
                async for deltas in steps:
                    arrived.put_nowait([replace(delta, index=index) for delta in deltas])
            arrived.put_nowait(None)
        except Exception as error:
            arrived.put_nowait(error)

    runs = [asyncio.create_task(run(index, request)) for index, request in enumerate(requests)]
    try:
        running = len(runs)
        while running:
            item = await arrived.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                running -= 1
            else:
                yield item
    finally:
        for task in runs:
            task.cancel()
        await asyncio.gather(*runs, return_exceptions=True)
