"""How much of the prompts a step computes, chosen from how long past steps took.

A pass of prompts through the layers can stop behind any layer and go on in the next step, so that chunks are
large enough to make good use of the weights, and yet a step beside running streams takes little longer than
one without prompts, or their tokens would come late. Alone, or where more wait than run, passes do not stop.
Chunked prefill: Agrawal et al., 2023; in layers: Lee et al., 2025 (layered prefill).
"""

from __future__ import annotations

import math
from typing import Final

LARGEST: Final = 512
"""Tokens of a chunk."""
UNIT: Final = 16
"""All chunks of a prompt but its last are multiples of this."""
BESIDE: Final = 0.5
"""How long a step computes prompts beside running streams, in ordinary steps: below 1, since no token shall
come later than two steps after the one before it, and estimates err."""
SEVERAL: Final = 3.0
"""The same when several prompts wait: their first tokens are worth more than even streams."""

_LAYERS: Final = 3
"""Of a chunk in a step beside running streams."""
_WEIGHT: Final = 0.3
"""Of the newest observation in a running mean."""


class StepBudget:
    """Learns from what it observes. Seconds and tokens."""

    def __init__(self) -> None:
        self._ordinary: dict[int, float] = {}
        """Seconds of a step without prompts, by the number of its rows."""
        self._per_token: float | None = None
        """Seconds that a layer takes for a prompt's token."""

    def seconds(self, decoding: int, prompts: int = 1) -> float:
        """For prompts, in a step in which ``decoding`` sequences get their next token and ``prompts`` wait
        for their first. When more wait than run, their first tokens go before the others' next ones."""
        if not decoding or prompts >= max(2, decoding):
            return math.inf
        nearest = min(self._ordinary, key=lambda rows: abs(rows - decoding), default=None)
        ordinary = 0.0 if nearest is None else self._ordinary[nearest]
        return ordinary * (SEVERAL if prompts > 1 else BESIDE)

    def tokens(self, decoding: int, prompts: int = 1) -> int:
        """The chunk to begin then: one of which some layers take that long, since a step has whole layers."""
        seconds = self.seconds(decoding, prompts)
        if math.isinf(seconds):
            return LARGEST
        if self._per_token is None:
            return UNIT
        return min(max(int(seconds / _LAYERS / self._per_token) // UNIT, 1) * UNIT, LARGEST)

    def observe_step(self, decoding: int, seconds: float) -> None:
        """A step without prompts."""
        self._ordinary[decoding] = _mean(self._ordinary.get(decoding), seconds)

    def observe_layer(self, tokens: int, seconds: float) -> None:
        """Of a pass of prompts. Few tokens cost as much as many, and say little of many."""
        self._per_token = _mean(self._per_token, seconds / max(tokens, LARGEST // 8))


def _mean(before: float | None, newest: float) -> float:
    return newest if before is None else before + _WEIGHT * (newest - before)
