"""vLLM's sleep routes: ``POST /sleep``, ``POST /wake_up``, ``GET /is_sleeping``."""

from __future__ import annotations

from typing import Literal

from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromQuery
from litestar.types import Scope

from engine import ALL_TAGS, Level, Tag
from gateway.api.keys import ADMIN
from gateway.api.naming import configured_name_or_all
from gateway.api.openapi.described import described
from gateway.api.schema.sleep import SleepingResponse, SleepResponse, WakeResponse
from gateway.fleet import Fleet


@post("/sleep", status_code=200, opt=ADMIN | described(fails=(503,)))
async def sleep(
    scope: Scope,
    fleet: NamedDependency[Fleet],
    model: FromQuery[str | None] = None,
    level: FromQuery[Level] = 1,
    mode: FromQuery[Literal["wait", "abort"]] = "wait",
) -> SleepResponse:
    """Put a model to sleep; without ``model``, every one that is not pinned.

    ``mode=wait`` lets what is in flight finish, ``abort`` cuts it off."""
    return SleepResponse(level=await fleet.sleep(configured_name_or_all(scope, fleet, model), level, mode))


@post("/wake_up", status_code=200, opt=ADMIN | described(fails=(503,)))
async def wake_up(
    scope: Scope,
    fleet: NamedDependency[Fleet],
    model: FromQuery[str | None] = None,
    tags: FromQuery[list[Tag] | None] = None,
) -> WakeResponse:
    """Wake a model; without ``model``, all of them.

    ``tags=weights`` alone restores the weights only; the missing tag, or a request, completes it."""
    awake = await fleet.wake(
        configured_name_or_all(scope, fleet, model), frozenset(tags) if tags else ALL_TAGS
    )
    return WakeResponse(status="awake" if awake else "sleeping", tags=tags)


@get("/is_sleeping")
async def is_sleeping(
    scope: Scope, fleet: NamedDependency[Fleet], model: FromQuery[str | None] = None
) -> SleepingResponse:
    """Whether a model sleeps; without ``model``, whether all of them do."""
    return SleepingResponse(is_sleeping=fleet.is_sleeping(configured_name_or_all(scope, fleet, model)))
