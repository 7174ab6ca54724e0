"""``GET /health``, ``GET /ready`` and ``GET /version``: open to all, and they touch no model."""

from __future__ import annotations

from importlib.metadata import version

from litestar import get
from litestar.di import NamedDependency

from gateway.api.keys import OPEN
from gateway.errors import NotReady, ShuttingDown, Unhealthy
from gateway.fleet import Fleet


@get("/health", opt=OPEN)
async def health(fleet: NamedDependency[Fleet]) -> dict[str, str]:
    if fault := fleet.fault():
        raise Unhealthy("the model {!r} cannot be trusted to answer: {}".format(*fault))
    return {"status": "ok"}


@get("/ready", opt=OPEN)
async def ready(fleet: NamedDependency[Fleet]) -> dict[str, str]:
    if fleet.draining:
        raise ShuttingDown("the server is shutting down")
    if not fleet.ready:
        raise NotReady("models are still being opened, or woken from the start")
    return {"status": "ready"}


@get("/version", opt=OPEN)
async def get_version() -> dict[str, str]:
    return {"version": version("dormouse")}
