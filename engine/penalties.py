"""What a sequence's own tokens and the caller's bias change in its logits.

The repetition penalty (Keskar et al., 2019) falls on tokens of the prompt and of the answer, presence and
frequency penalties on those of the answer, the bias on the ids that it names. All rows' changes are made in
one go.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from engine.types import SamplingParams

_LEAST: Final = 1e-6


class History:
    """One sequence's tokens as its penalties need them, counted as they come."""

    def __init__(self, params: SamplingParams, prompt_ids: Sequence[int]) -> None:
        # Within what keeps logits finite: one row that is not fails the whole step.
        self.repetition = min(max(params.repetition_penalty, _LEAST), 1 / _LEAST)
        self._presence = params.presence_penalty
        self._frequency = params.frequency_penalty
        self._bias = params.logit_bias
        self._prompt_ids = prompt_ids
        self._counts: dict[int, int] = {}
        """Of the answer's tokens."""

    @property
    def matters(self) -> bool:
        """Whether it changes, or may come to change, anything."""
        return bool(self.repetition != 1 or self._bias or self._presence or self._frequency)

    @property
    def adds(self) -> bool:
        """Whether anything is added to the logits."""
        return bool(self._bias or ((self._presence or self._frequency) and self._counts))

    def add(self, token_id: int) -> None:
        """A token of the answer."""
        self._counts[token_id] = self._counts.get(token_id, 0) + 1

    def seen(self) -> NDArray[np.int64]:
        """The ids that the repetition penalty falls on; one may be there twice."""
        return np.concatenate([self._prompt, self._answer])

    def additions(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Ids, and what is added to their logits; an id that is there twice gets both."""
        counts = np.fromiter(self._counts.values(), np.float32, len(self._counts))
        ids, values = self._biased
        return (
            np.concatenate([self._answer, ids]),
            np.concatenate([-self._presence - self._frequency * counts, values], dtype=np.float32),
        )

    @property
    def _answer(self) -> NDArray[np.int64]:
        return np.fromiter(self._counts, np.int64, len(self._counts))

    @cached_property
    def _prompt(self) -> NDArray[np.int64]:
        return np.unique(np.array(self._prompt_ids, np.int64))

    @cached_property
    def _biased(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        ids, values = self._bias.keys(), self._bias.values()
        return np.fromiter(ids, np.int64, len(ids)), np.fromiter(values, np.float32, len(values))


def penalise(logits: torch.Tensor, histories: Sequence[History]) -> None:
    """logits float32 [rows, vocabulary], a history for each row; in place."""
    repeating = [(row, history) for row, history in enumerate(histories) if history.repetition != 1]
    if repeating:
        found = [history.seen() for _, history in repeating]
        rows, ids = _index([row for row, _ in repeating], found, logits.device)
        factors = [np.float32(history.repetition) for _, history in repeating]
        penalty = torch.from_numpy(np.repeat(factors, [len(one) for one in found])).to(logits.device)
        values = logits[rows, ids]
        logits[rows, ids] = torch.where(values > 0, values / penalty, values * penalty)
    adding = [(row, history.additions()) for row, history in enumerate(histories) if history.adds]
    if adding:
        rows, ids = _index([row for row, _ in adding], [ids for _, (ids, _) in adding], logits.device)
        values = torch.from_numpy(np.concatenate([values for _, (_, values) in adding])).to(logits.device)
        logits.index_put_((rows, ids), values, accumulate=True)


def _index(
    rows: Sequence[int], ids: Sequence[NDArray[np.int64]], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where each row's ids are in the logits."""
    repeated = np.repeat(np.array(rows, np.int64), [len(one) for one in ids])
    return torch.from_numpy(repeated).to(device), torch.from_numpy(np.concatenate(ids)).to(device)
