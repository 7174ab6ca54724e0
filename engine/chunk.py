"""How many tokens of prompts a step may compute, chosen from how long past steps took.

Beside running streams a step should take little longer than one without prompts, or their tokens would come
late; alone, or where more wait than run, a large chunk makes best use of the weights that are read anyway.
Costs drift (a longer context makes later chunks dearer), so recent steps count more.
Chunked prefill: Agrawal et al., 2023.
"""

from __future__ import annotations

from typing import Final

LARGEST: Final = 512
UNIT: Final = 8
"""A chunk beside running streams is a multiple of this."""
STRETCH: Final = 1.5
"""How long a step with a prompt's chunk may take, in ordinary steps: well below 2, since estimates err."""

_WEIGHT: Final = 0.3
"""Of the newest observation in a running mean."""
_RISE, _FALL = 0.7, 0.05
"""The same for what a prompt's token costs: a step that took too long is not soon tried again."""
_LEAST_SHARE: Final = 0.1
"""Of a mixed step's time that is put down to its prompts at least, whatever the noise says."""


class StepBudget:
    """Learns from ``observe`` and answers ``prefill_tokens``. Seconds and tokens."""

    def __init__(self, largest: int = LARGEST) -> None:
        self.largest = largest
        self._ordinary: dict[int, float] = {}
        """A step's seconds without prompts, by the number of its decoding rows."""
        self._per_token: float | None = None
        self._mixed_seen = False

    def prefill_tokens(self, decoding: int, prompts: int = 1) -> int:
        """For a step in which ``decoding`` sequences get their next token and ``prompts`` wait for their
        first: a multiple of ``UNIT``. When more wait than run, their first tokens go before the others'
        next ones: small chunks would serve all of them later."""
        if not decoding:
            return self.largest
        if prompts >= max(2, decoding):
            return self.largest // 2
        ordinary = self._ordinary_seconds(decoding)
        if ordinary is None or self._per_token is None:
            return UNIT
        tokens = int((STRETCH - 1) * ordinary / self._per_token)
        return min(max(tokens // UNIT, 1) * UNIT, self.largest)

    def observe(self, decoding: int, prefill: int, seconds: float) -> None:
        """A step of ``decoding`` rows and ``prefill`` tokens of prompts took ``seconds``."""
        if not prefill:
            self._ordinary[decoding] = _mean(self._ordinary.get(decoding), seconds)
        elif decoding:
            beyond = seconds - (self._ordinary_seconds(decoding) or 0.0)
            cost = max(beyond, _LEAST_SHARE * seconds) / prefill
            before = self._per_token if self._mixed_seen else cost
            self._per_token = _mean(before, cost, _RISE if cost > (before or 0.0) else _FALL)
            self._mixed_seen = True
        elif not self._mixed_seen:  # the best guess that there is
            self._per_token = _mean(self._per_token, seconds / prefill)

    def _ordinary_seconds(self, decoding: int) -> float | None:
        """Of as many rows, or of the nearest number that has been seen."""
        nearest = min(self._ordinary, key=lambda rows: abs(rows - decoding), default=None)
        return None if nearest is None else self._ordinary[nearest]


def _mean(before: float | None, newest: float, weight: float = _WEIGHT) -> float:
    return newest if before is None else before + weight * (newest - before)
