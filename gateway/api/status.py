"""``GET /api/status``: all that ``dormouse ps`` shows. Looking wakes nothing."""

from __future__ import annotations

from typing import Any

from litestar import get
from litestar.di import NamedDependency
from msgspec import Struct

from gateway.fleet import Fleet, ModelStatus
from gateway.metrics import Metrics


class StatusResponse(Struct, frozen=True, kw_only=True):
    models: list[ModelStatus]
    generated_tokens: dict[str, int]
    """Of the answers since the start, by model."""
    device: dict[str, Any]
    host: dict[str, Any]


@get("/api/status")
async def get_status(fleet: NamedDependency[Fleet], metrics: NamedDependency[Metrics]) -> StatusResponse:
    """Every model's state, times and bytes, and the memory of device and host."""
    await fleet.read_lengths()
    return StatusResponse(
        models=fleet.status(), generated_tokens=metrics.steps.generated_tokens(), **fleet.memory()
    )
