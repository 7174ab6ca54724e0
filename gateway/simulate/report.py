"""The figures of an outcome: by name for programs, in words for people."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.simulate.replay import Outcome
from gateway.units import format_bytes, format_seconds

Figures = dict[str, Any]


def figures(outcome: Outcome) -> Figures:
    """Shares are of 1, times in seconds; counts by level and by HTTP status have these as their keys."""
    tally = outcome.tally
    waits = sorted(tally.waits)
    return {
        "requests": tally.requests,
        "answered": tally.answered,
        "refused": _by_key(tally.refused),
        "cold_share": tally.cold / max(1, tally.requests),
        "wait_mean": sum(waits) / max(1, len(waits)),
        "wait_p50": _quantile(waits, 0.50),
        "wait_p99": _quantile(waits, 0.99),
        "wait_max": _quantile(waits, 1.0),
        "wakes": _by_key(tally.wakes),
        "sleeps": _by_key(tally.sleeps),
        "bytes_moved": outcome.bytes_moved,
        "device_busy_share": outcome.busy_share,
        "device_used_share": outcome.used_share,
        "seconds": outcome.seconds,
    }


def words(figures: Figures) -> dict[str, str]:
    """A line of a table each."""
    return {
        "requests": f"{figures['requests']:,}",
        "waited for a wake": f"{figures['cold_share']:.2%}",
        "wait, mean": format_seconds(figures["wait_mean"]),
        "wait, median": format_seconds(figures["wait_p50"]),
        "wait, 99 of 100 within": format_seconds(figures["wait_p99"]),
        "wait, longest": format_seconds(figures["wait_max"]),
        "refused": _counts(figures["refused"]),
        "wakes from level": _counts(figures["wakes"]),
        "sleeps to level": _counts(figures["sleeps"]),
        "weights moved": format_bytes(figures["bytes_moved"]),
        "device held": f"{figures['device_used_share']:.0%}",
        "device held by the busy": f"{figures['device_busy_share']:.1%}",
    }


def _quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that so many are not above; 0 of nothing."""
    if not ordered:
        return 0.0
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _by_key(counts: Mapping[Any, int]) -> dict[str, int]:
    return {str(key): counts[key] for key in sorted(counts)}


def _counts(counts: Mapping[str, int]) -> str:
    return "\n".join(f"{key}: {count:,}" for key, count in counts.items()) or "-"
