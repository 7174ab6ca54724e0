"""vLLM's ``POST /reset_prefix_cache``. It wakes nothing: who sleeps has no prefix cache."""

from __future__ import annotations

from litestar import post
from litestar.di import NamedDependency
from litestar.params import FromQuery
from litestar.types import Scope

from gateway.api.keys import ADMIN
from gateway.api.naming import configured_name_or_all
from gateway.api.schema.prefix_cache import ResetResponse
from gateway.fleet import Fleet


@post("/reset_prefix_cache", status_code=200, opt=ADMIN)
async def reset_prefix_cache(
    scope: Scope, fleet: NamedDependency[Fleet], model: FromQuery[str | None] = None
) -> ResetResponse:
    """Forget the prompts that are kept; without ``model``, those of all models."""
    await fleet.reset_prefix_cache(configured_name_or_all(scope, fleet, model))
    return ResetResponse()
