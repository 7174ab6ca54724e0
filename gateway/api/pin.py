"""``POST /api/pin`` and ``POST /api/unpin``: whether a model may sleep only by hand."""

from __future__ import annotations

from litestar import post
from litestar.di import NamedDependency
from litestar.params import FromQuery
from litestar.types import Scope
from msgspec import Struct

from gateway.api.keys import ADMIN
from gateway.api.naming import configured_name
from gateway.fleet import Fleet


class PinResponse(Struct, frozen=True, kw_only=True):
    model: str
    pinned: bool


@post("/api/pin", status_code=200, opt=ADMIN)
async def pin(scope: Scope, fleet: NamedDependency[Fleet], model: FromQuery[str]) -> PinResponse:
    """Keep a model from sleeping by itself, until the server ends or its configuration says otherwise.

    It sleeps by hand only, and nobody else gets its room. Pinning wakes nothing."""
    return _pinned(scope, fleet, model, True)


@post("/api/unpin", status_code=200, opt=ADMIN)
async def unpin(scope: Scope, fleet: NamedDependency[Fleet], model: FromQuery[str]) -> PinResponse:
    """Let a model sleep by itself again."""
    return _pinned(scope, fleet, model, False)


def _pinned(scope: Scope, fleet: Fleet, model: str, pinned: bool) -> PinResponse:
    name = configured_name(scope, fleet, model)
    fleet.pin(name, pinned)
    return PinResponse(model=name, pinned=pinned)
