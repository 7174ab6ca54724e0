"""The model that a request names in its address, as the configuration calls it."""

from __future__ import annotations

from litestar.types import Scope

from gateway.api.record import record_of
from gateway.fleet import Fleet


def configured_name(scope: Scope, fleet: Fleet, model: str | None) -> str | None:
    """The name behind an alias, which the request's line in the log tells; None: every model."""
    if model is None:
        return None
    record = record_of(scope)
    record.model = fleet.resolve(model).name
    return record.model
