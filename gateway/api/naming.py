"""The model that a request names in its address, as the configuration calls it."""

from __future__ import annotations

from litestar.types import Scope

from gateway.api.record import record_of
from gateway.fleet import Fleet


def configured_name(scope: Scope, fleet: Fleet, model: str) -> str:
    """The name behind an alias, which the request's line in the log tells."""
    name = fleet.resolve(model).name
    record_of(scope).model = name
    return name


def configured_name_or_all(scope: Scope, fleet: Fleet, model: str | None) -> str | None:
    """The same; None: every model."""
    return None if model is None else configured_name(scope, fleet, model)
