"""The pictures of docs/, drawn from what was measured: `python -m tests.docs.pictures` writes them anew."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "tests" / "bench" / "results"

WIDTH, LEFT, RIGHT = 800, 265, 75
BAR, GAP, TOP = 18, 8, 44
COLOURS = ("#3b6ea5", "#e0a030", "#7fae6e")
BACKGROUND, INK = "#ffffff", "#222222"


@dataclass(frozen=True, slots=True)
class Bar:
    label: str
    parts: tuple[float, ...]
    text: str
    """Behind the bar: of medians, the whole is not the sum."""


def pictures() -> dict[str, str]:
    """By the names of their files."""
    return {
        "sleep-switch.svg": _switch(),
        "sleep-suspension.svg": _suspension(),
        "sleep-policies.svg": _policies(),
    }


def _result(name: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return result


def _switch() -> str:
    result = _result("cpu-switch")
    model = result["switches"][0]["model"]
    bars = [
        _timed(switch["mode"], (switch["sleep"], switch["wake"], switch["first_token"]), switch["total"])
        for switch in result["switches"]
        if switch["model"] == model
    ]
    cold = result["cold_starts"][model]["dormouse"]
    bars.append(_timed("a new process", (0.0, cold["total"] - cold["first_token"], cold["first_token"])))
    title = "From one model to the other, 1.2 GB of weights, seconds"
    return _svg(title, ("sleep", "start or wake", "first token"), bars)


def _suspension() -> str:
    result = _result("cpu-suspension")
    ways = {"parked": "KV kept", "recomputed": "KV computed again"}
    bars = []
    for key, way in ways.items():
        bars.append(_timed(f"{way}: one after the other", (result[key]["seconds_alone"],)))
        bars.append(_timed(f"{way}: by turns", (result[key]["seconds_by_turns"],)))
    return _svg("Two busy models that do not fit together, seconds until all is answered", (), bars)


def _policies() -> str:
    names = {"lru": "least recently used", "gds": "GreedyDual-Size", "dormouse": "Dormouse"}
    loads = {"zipf": "steadily", "daily": "by day and night", "bursts": "in bursts"}
    results = _result("simulate")["loads"]
    bars = [
        _timed(f"{load}: {name}", (results[key][policy]["wait_mean"],))
        for key, load in loads.items()
        for policy, name in names.items()
    ]
    return _svg("How long a request waits for its model on average, simulated, seconds", (), bars)


def _timed(label: str, seconds: tuple[float, ...], total: float | None = None) -> Bar:
    return Bar(label, seconds, f"{sum(seconds) if total is None else total:.3g} s")


def _svg(title: str, legend: Sequence[str], bars: Sequence[Bar]) -> str:
    height = TOP + (22 if legend else 0) + len(bars) * (BAR + GAP)
    scale = (WIDTH - LEFT - RIGHT) / max(sum(bar.parts) for bar in bars)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}"'
        f' height="{height}" font-family="sans-serif" font-size="13" fill="{INK}" role="img">',
        f"<title>{title}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="{BACKGROUND}"/>',
        f'<text x="10" y="22" font-size="15">{title}</text>',
        *_legend(legend),
    ]
    y = TOP + (22 if legend else 0) - GAP
    for bar in bars:
        lines += _drawn(bar, y, scale)
        y += BAR + GAP
    return "\n".join((*lines, "</svg>", ""))


def _legend(names: Sequence[str]) -> Iterator[str]:
    for place, (name, colour) in enumerate(zip(names, COLOURS, strict=False)):
        x = LEFT + place * 130
        yield f'<rect x="{x}" y="36" width="12" height="12" fill="{colour}"/>'
        yield f'<text x="{x + 18}" y="47">{name}</text>'


def _drawn(bar: Bar, y: int, scale: float) -> Iterator[str]:
    yield f'<text x="{LEFT - 10}" y="{y + 14}" text-anchor="end">{bar.label}</text>'
    x = float(LEFT)
    for part, colour in zip(bar.parts, COLOURS, strict=False):
        yield f'<rect x="{x:.1f}" y="{y}" width="{part * scale:.1f}" height="{BAR}" fill="{colour}"/>'
        x += part * scale
    yield f'<text x="{x + 6:.1f}" y="{y + 14}">{bar.text}</text>'


if __name__ == "__main__":
    for name, drawn in pictures().items():
        (ROOT / "docs" / name).write_text(drawn)
