"""The real application and the real fleet, over scripted engines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from litestar import Litestar

from gateway.app import create_app
from gateway.config import Config, ModelConfig, ServerConfig
from gateway.fleet import Fleet, SchedulerTimers
from tests.bodies.broken import Sent
from tests.bodies.good import CHAT, COMPLETIONS, DETOKENIZE, EMBEDDINGS, RPC, TOKENIZE
from tests.gateway.api.caller import Caller, Reply, until
from tests.gateway.api.scripted import Script, ScriptedBackend


@dataclass
class Gateway(Caller):
    """A running gateway with two models: ``alpha``, also called ``gpt-4o-mini``, and ``org/beta``."""

    app: Litestar
    fleet: Fleet
    alpha: Script
    beta: Script

    def in_flight(self) -> int:
        return sum(status.in_flight for status in self.fleet.status())

    def is_cold(self) -> bool:
        return all(status.state == "cold" for status in self.fleet.status()) and not self.alpha.wakes


def build(server: ServerConfig | None = None, **alpha: Any) -> Gateway:
    """``alpha``: fields of that model's configuration."""
    scripts = {"/alpha": Script(), "org/beta": Script()}
    models = (
        replace(ModelConfig(name="alpha", path="/alpha", aliases=("gpt-4o-mini",)), **alpha),
        ModelConfig(name="org/beta", path="org/beta"),
    )
    config = Config(server=server or ServerConfig(), models=models)
    fleet = Fleet(config, SchedulerTimers(), backend=ScriptedBackend(scripts))
    return Gateway(create_app(fleet), fleet, scripts["/alpha"], scripts["org/beta"])


@asynccontextmanager
async def running(server: ServerConfig | None = None, **alpha: Any) -> AsyncIterator[Gateway]:
    async with started(build(server, **alpha)) as gateway:
        yield gateway


@asynccontextmanager
async def started(gateway: Gateway) -> AsyncIterator[Gateway]:
    await gateway.fleet.start()
    try:
        yield gateway
    finally:
        await gateway.fleet.close()


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with running() as running_gateway:
        yield running_gateway


@pytest.fixture
def beta_opens_slowly(gateway: Gateway) -> Iterator[None]:
    """Until ``may_open`` is set, by the test or by its end."""
    gateway.beta.may_open.clear()
    yield
    gateway.beta.may_open.set()


@dataclass
class Desk:
    """A gateway and the loop that it runs in, for tests that are no coroutines: one for many examples.

    ``alpha`` generates, and falls asleep after every answer; ``org/beta`` embeds.
    """

    gateway: Gateway = field(repr=False)
    runner: asyncio.Runner = field(repr=False)

    def send(self, sent: Sent) -> Reply:
        """The answer, when the request has left nothing behind."""
        return self.runner.run(self._send(sent))

    async def _send(self, sent: Sent) -> Reply:
        headers = {"content-type": sent.content_type}
        reply = await self.gateway.call("POST", sent.path, body=sent.chunks, headers=headers).reply()
        await until(lambda: not any(s.in_flight or s.queued for s in self.gateway.fleet.status()))
        return reply

    def reached(self) -> list[int]:
        """How often an engine was woken, and how often it was asked."""
        scripts = (self.gateway.alpha, self.gateway.beta)
        return [count for s in scripts for count in (s.wakes, len(s.requests), len(s.embedded))]


DESK_MODELS = {
    CHAT: "alpha",
    COMPLETIONS: "gpt-4o-mini",
    EMBEDDINGS: "org/beta",
    TOKENIZE: "alpha",
    DETOKENIZE: "org/beta",
    RPC: "alpha",
}


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    gateway = build(idle_timeout=0.0)
    gateway.alpha.max_model_len = 2000
    gateway.alpha.chat_template = (
        "{% for m in messages %}{{ m | tojson }}{% endfor %}{{ loud | default('') | tojson }}"
    )
    gateway.beta.kind, gateway.beta.embedding_size = "embed", 3
    with asyncio.Runner() as runner:
        runner.run(gateway.fleet.start())
        yield Desk(gateway, runner)
        runner.run(gateway.fleet.close())
