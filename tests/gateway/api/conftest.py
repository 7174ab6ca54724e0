"""The real application and the real fleet, over scripted engines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
from litestar import Litestar

from gateway.app import create_app
from gateway.config import Config, ModelConfig, ServerConfig
from gateway.fleet import Fleet, SchedulerTimers
from tests.gateway.api.caller import Caller
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
