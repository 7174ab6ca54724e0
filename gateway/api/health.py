"""``GET /health``, ``GET /ready`` and ``GET /version``: open to all, and they touch no model."""

from __future__ import annotations

from importlib.metadata import version

from litestar import get
from litestar.di import NamedDependency

from gateway.api.keys import OPEN
from gateway.api.openapi.described import described
from gateway.errors import NotReady, ShuttingDown, Unhealthy
from gateway.fleet import Fleet


@get("/health", opt=OPEN | described(fails=(503,)))
async def health(fleet: NamedDependency[Fleet]) -> dict[str, str]:
    """Whether every model can be trusted to answer."""
    if fault := fleet.fault():
        raise Unhealthy("the model {!r} cannot be trusted to answer: {}".format(*fault))
    return {"status": "ok"}


@get("/ready", opt=OPEN | described(fails=(503,)))
async def ready(fleet: NamedDependency[Fleet]) -> dict[str, str]:
    """Whether requests are welcome: not before preloads are done, nor while the server drains."""
    if fleet.draining:
        raise ShuttingDown("the server is shutting down")
    if not fleet.ready:
        raise NotReady("models are still being opened, or woken from the start")
    return {"status": "ready"}


@get("/version", opt=OPEN)
async def get_version() -> dict[str, str]:
    """Dormouse's version."""
    return {"version": version("dormouse")}
