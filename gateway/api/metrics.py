"""``GET /metrics``, for Prometheus. Looking wakes nothing."""

from __future__ import annotations

from litestar import get
from litestar.di import NamedDependency

from gateway.metrics import CONTENT_TYPE, Metrics


@get("/metrics", media_type=CONTENT_TYPE)
async def get_metrics(metrics: NamedDependency[Metrics]) -> str:
    """Counts, times and sizes in Prometheus's text format."""
    return metrics.expose()
