"""How a request for tokens is answered, whatever its endpoint: prepare, lease, generate, send.

An endpoint makes a ``Job`` of its request, which needs no weights and wakes nothing; this module takes the
lease and keeps it around the sending, streamed or not.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field
from typing import Final, TypeVar

import msgspec
from litestar.types import Receive, Scope, Send
from msgspec import UNSET, Struct

from engine import Delta
from gateway.api import sse
from gateway.api.asgi import JSON
from gateway.api.client import Client
from gateway.api.errors import as_api_error, error_json
from gateway.api.job import Choice, Heading, Job
from gateway.api.leasing import leased
from gateway.api.meanwhile import Meanwhile, WakeChunk
from gateway.api.merging import generate_all
from gateway.api.record import Record
from gateway.api.schema.generation import (
    ChunkUsage,
    GenerationRequest,
    PromptTokensDetails,
    StreamOptions,
    Usage,
)
from gateway.fleet import Fleet, Lease

T = TypeVar("T")
Place = AbstractAsyncContextManager[tuple[Job, Lease]]

_AT_ONCE: Final = 2000
"""Tokens and log probabilities of an answer that is encoded on the loop; a larger one would be felt there."""


@dataclass(slots=True)
class Tally:
    """What has come so far: counts for ``usage``, times for ``Server-Timing``."""

    job: Job
    lease: Lease
    record: Record
    completion_tokens: int = 0
    cached_tokens: int = 0
    leased_at: float = field(default_factory=time.monotonic)
    prefill_seconds: float | None = None

    def __enter__(self) -> Tally:
        self.record.placed(self.lease, self._prompt_tokens)
        return self

    def __exit__(self, *_: object) -> None:
        self.record.generated(self.completion_tokens, self.cached_tokens)

    def count(self, deltas: list[Delta]) -> None:
        tokens = 0
        for delta in deltas:
            tokens += len(delta.token_ids)
            if delta.index % self.job.n == 0:  # a prompt counts once, whatever its number of choices
                self.cached_tokens += delta.cached_tokens
        self.record.stepped(tokens)
        if self.prefill_seconds is None:
            self.prefill_seconds = time.monotonic() - self.leased_at
        self.completion_tokens += tokens

    @property
    def usage(self) -> Usage:
        return Usage(
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self.completion_tokens,
            total_tokens=self._prompt_tokens + self.completion_tokens,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=self.cached_tokens),
        )

    @property
    def told(self) -> int:
        """How many tokens and log probabilities a whole answer tells of."""
        tokens = self.completion_tokens * (1 + self.job.logprobs)
        return tokens + self._prompt_tokens * self.job.prompt_logprobs

    @property
    def _prompt_tokens(self) -> int:
        return sum(len(request.prompt_ids) for request in self.job.requests)

    @property
    def chunk_usage(self) -> ChunkUsage:
        options = self.job.stream_options
        if options.continuous_usage_stats:
            return self.usage
        return None if options.include_usage else UNSET

    @property
    def server_timing(self) -> str:
        return server_timing(self.lease, self.prefill_seconds or 0.0)


def server_timing(lease: Lease, prefill_seconds: float) -> str:
    """The header's value, in milliseconds."""
    seconds = {"queue": lease.queue_seconds, "wake": lease.wake_seconds, "prefill": prefill_seconds}
    return ", ".join(f"{name};dur={value * 1000:.1f}" for name, value in seconds.items())


class Generating:
    """The ASGI app that a generating handler returns: it runs in place of a response."""

    def __init__(
        self,
        request: GenerationRequest,
        heading: Heading,
        prepare: Callable[[], Awaitable[Job]],
        wake_chunk: WakeChunk,
        fleet: Fleet,
        *,
        stall_timeout: float,
    ) -> None:
        """``prepare`` makes the job once the model is open; ``wake_chunk`` tells how far that is."""
        self._request = request
        self._model = heading.model
        self._prepare = prepare
        self._wake_chunk = wake_chunk
        self._fleet = fleet
        self._stall_timeout = stall_timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = Client(scope, receive, send, stall_timeout=self._stall_timeout)
        await client.serve(self._answer(client))

    async def _answer(self, client: Client) -> None:
        client.record.model = self._model
        place = leased(self._fleet, self._model, self._prepare)
        if not self._request.stream:
            await _answer_whole(client, place)
        else:
            options = self._request.stream_options or StreamOptions()
            await _stream(client, place, Meanwhile(self._fleet, self._model, options, self._wake_chunk))


async def _answer_whole(client: Client, place: Place) -> None:
    async with place as (job, lease):
        client.on_behind = lease.set_behind
        choices = [Choice() for _ in range(len(job.requests) * job.n)]
        with Tally(job, lease, client.record) as tally:
            async with aclosing(generate_all(lease, job.requests)) as steps:
                async for deltas in steps:
                    tally.count(deltas)
                    _collect(choices, deltas)
        body = await _made(_encode_whole, tally, choices, off_the_loop=tally.told > _AT_ONCE)
        await client.respond(200, body, {**JSON, "server-timing": tally.server_timing})


async def _stream(client: Client, place: Place, meanwhile: Meanwhile) -> None:
    async with sse.EventStream(client, meanwhile.events, every=meanwhile.every) as events:
        try:
            async with place as (job, lease):
                meanwhile.placed = True
                client.on_behind = lease.set_behind
                with Tally(job, lease, client.record) as tally:
                    await _send_events(events, tally)
        except Exception as error:
            if not events.started:
                raise
            await events.fail(error_json(as_api_error(error)))


async def _send_events(events: sse.EventStream, tally: Tally) -> None:
    job = tally.job
    off_the_loop = job.prompt_logprobs > 0
    async with aclosing(generate_all(tally.lease, job.requests)) as steps:
        first: list[Delta] = await anext(steps, [])
        tally.count(first)
        told_timing = await events.begin({"server-timing": tally.server_timing})
        opening = _encode(job.format.opening(tally.chunk_usage))
        await events.write(opening + await _made(_encode_step, tally, first, off_the_loop=off_the_loop))
        async for deltas in steps:
            tally.count(deltas)
            if encoded := await _made(_encode_step, tally, deltas, off_the_loop=off_the_loop):
                await events.write(encoded)
    ending = b""
    if job.stream_options.include_usage:
        ending += _encode([job.format.usage_chunk(tally.usage)])
    if not told_timing:
        ending += sse.comment(f"server-timing {tally.server_timing}")
    await events.end(ending)


async def _made(encode: Callable[[Tally, T], bytes], tally: Tally, parts: T, *, off_the_loop: bool) -> bytes:
    return await asyncio.to_thread(encode, tally, parts) if off_the_loop else encode(tally, parts)


def _encode_whole(tally: Tally, choices: list[Choice]) -> bytes:
    return msgspec.json.encode(tally.job.format.whole(choices, tally.usage))


def _encode_step(tally: Tally, deltas: list[Delta]) -> bytes:
    usage = tally.chunk_usage
    chunks = tally.job.format.chunks
    return _encode(chunk for delta in deltas for chunk in chunks(delta, usage))


def _encode(chunks: Iterable[Struct]) -> bytes:
    return b"".join([sse.data(msgspec.json.encode(chunk)) for chunk in chunks])


def _collect(choices: list[Choice], deltas: list[Delta]) -> None:
    for delta in deltas:
        choices[delta.index].deltas.append(delta)
