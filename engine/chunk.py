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
BESIDE: Final = 0.4
"""By how much prompts may lengthen a step beside running streams, in ordinary steps: below 1, since no token
shall come later than two steps after the one before it, and estimates err."""
SEVERAL: Final = 3.0
"""The same when several prompts wait: their first tokens are worth more than even streams."""

LAYERS: Final = 3
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
        """That a step may take in which ``decoding`` sequences get their next token, before layers of the
        ``prompts`` that wait for their first. These make up for next tokens that came late."""
        lengthening = _lengthening(decoding, prompts)
        return math.inf if math.isinf(lengthening) else self._ordinary_step(decoding) * (1 + lengthening)

    def tokens(self, decoding: int, prompts: int = 1) -> int:
        """The chunk to begin then: one of which some layers fit into such a step, since it has whole ones."""
        lengthening = _lengthening(decoding, prompts)
        if math.isinf(lengthening):
            return LARGEST
        if self._per_token is None:
            return UNIT
        seconds = self._ordinary_step(decoding) * lengthening / LAYERS
        return min(max(int(seconds / self._per_token) // UNIT, 1) * UNIT, LARGEST)

    def observe_step(self, decoding: int, seconds: float, *, alone: bool = True) -> None:
        """What the next tokens of a step took. Beside prompts they take longer, since these have emptied the
        caches; that counts as long as nothing better is known."""
        if alone or decoding not in self._ordinary:
            self._ordinary[decoding] = _mean(self._ordinary.get(decoding), seconds)

    def _ordinary_step(self, decoding: int) -> float:
        nearest = min(self._ordinary, key=lambda rows: abs(rows - decoding), default=None)
        return 0.0 if nearest is None else self._ordinary[nearest]

    def observe_layer(self, tokens: int, seconds: float) -> None:
        """Of a pass of prompts. Few tokens cost as much as many, and say little of many."""
        self._per_token = _mean(self._per_token, seconds / max(tokens, LARGEST // 8))


def _lengthening(decoding: int, prompts: int) -> float:
    """Of a step, in ordinary ones. When more wait than run, their first tokens go before the others' next."""
    if not decoding or prompts >= max(2, decoding):
        return math.inf
    return SEVERAL if prompts > 1 else BESIDE


def _mean(before: float | None, newest: float) -> float:
    return newest if before is None else before + _WEIGHT * (newest - before)
