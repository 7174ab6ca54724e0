"""The cost model: how long sleeping, waking and generating take, as `dormouse bench switch` measures them.

A step of one engine takes ``weights_bytes * (per_step + per_token * tokens in the step)`` seconds: it reads
all weights once and computes with each token. Both figures are fitted to the measured tokens a second.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import msgspec

from engine import Level


class CostsError(ValueError):
    """A file of costs that cannot be used; the message says why."""


class LevelCosts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Sleeping at a level and waking from it."""

    sleep_seconds: float
    wake_seconds: float
    """Beyond filling the weights."""
    bytes_per_second: float | None
    """At which weights are filled; None: they never left."""

    def __post_init__(self) -> None:
        if self.sleep_seconds < 0 or self.wake_seconds < 0 or (self.bytes_per_second or 1.0) <= 0:
            raise ValueError("expected no negative seconds, and a rate above 0 or none")


class Costs(msgspec.Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    level_1: LevelCosts
    level_2: LevelCosts
    weights_bytes: int
    """Of the model that generated."""
    tokens_per_second: dict[int, float]
    """Of all requests together, by how many are in flight; for at least two numbers of them."""

    def __post_init__(self) -> None:
        if len(self.tokens_per_second) < 2 or min(self.tokens_per_second.values()) <= 0:
            raise ValueError("tokens_per_second: expected positive figures for two numbers of requests")

    def level(self, level: Level) -> LevelCosts:
        return self.level_1 if level == 1 else self.level_2

    @cached_property
    def per_token(self) -> float:
        """Seconds that a further token in a step takes, for each byte of weights."""
        few, many = min(self.tokens_per_second), max(self.tokens_per_second)
        slope = (self._step(many) - self._step(few)) / (many - few)
        return max(0.0, slope) / self.weights_bytes

    @cached_property
    def per_step(self) -> float:
        """Seconds that a step takes before its tokens are counted, for each byte of weights."""
        few = min(self.tokens_per_second)
        return max(0.0, self._step(few) / self.weights_bytes - self.per_token * few)

    def _step(self, in_flight: int) -> float:
        return in_flight / self.tokens_per_second[in_flight]


CPU = Costs(
    level_1=LevelCosts(sleep_seconds=0.0005, wake_seconds=0.004, bytes_per_second=None),
    level_2=LevelCosts(sleep_seconds=0.0035, wake_seconds=0.004, bytes_per_second=1.14e9),
    weights_bytes=1_193_279_488,
    tokens_per_second={1: 12.6, 4: 38.9, 16: 69.5},
)
"""Two CPU cores, the files not in the page cache: tests/bench/results/cpu-switch.json, cpu-serving.json."""

GPU = Costs(
    level_1=LevelCosts(sleep_seconds=0.01, wake_seconds=0.02, bytes_per_second=22e9),
    level_2=LevelCosts(sleep_seconds=0.01, wake_seconds=0.02, bytes_per_second=5e9),
    weights_bytes=16_000_000_000,
    tokens_per_second={1: 94.0, 32: 2400.0},
)
"""Published figures, not ours: weights copied over PCIe 4, read from an NVMe disk, an 8B model on an A100."""


def load_costs(path: Path) -> Costs:
    """From the JSON line of `dormouse bench switch`, or its ``costs`` alone. Raises CostsError."""
    try:
        raw = msgspec.json.decode(path.read_bytes())
        return msgspec.convert(raw.get("costs", raw), Costs, str_keys=True)
    except OSError as error:
        raise CostsError(f"{path}: cannot be read: {error.strerror}") from None
    except (msgspec.MsgspecError, AttributeError, ValueError) as error:
        raise CostsError(f"{path}: not the costs of `dormouse bench switch`: {error}") from None
