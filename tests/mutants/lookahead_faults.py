"""Planted faults in queueing steps ahead, and the test that must catch each."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from engine.decode_inputs import DecodeInputs, _Twin
from engine.graphs import DecodeGraphs
from engine.lookahead import Lookahead
from engine.sampler import SampleRow
from engine.scheduler import Scheduler
from tests.mutants.engine_faults import FAULTS, caught_by

__all__ = ["FAULTS"]

KINDS = "test_lookahead.py::test_answers_of_all_kinds"


@caught_by(KINDS)
def inputs_have_one_twin(monkeypatch: pytest.MonkeyPatch) -> None:
    real = DecodeInputs.__init__

    def init(self: DecodeInputs, *args: Any) -> None:
        real(self, *args)
        del self._twins[1:]

    monkeypatch.setattr(DecodeInputs, "__init__", init)
    unheeded = property(lambda self: lambda: None, lambda self, value: None)
    monkeypatch.setattr(_Twin, "wait", unheeded, raising=False)


@caught_by(KINDS)
def a_graph_is_recorded_over_what_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    real = DecodeGraphs.replay

    def replay(self: DecodeGraphs, batch: Any, *args: Any) -> Any:
        rows = next(size for size in self._sizes if size >= len(batch.spans))
        if rows not in self._steps:
            self._record(rows)
        return real(self, batch, *args)

    monkeypatch.setattr(DecodeGraphs, "replay", replay)


@caught_by(KINDS)
def rows_are_taken_for_those_of_the_step_before(monkeypatch: pytest.MonkeyPatch) -> None:
    real = DecodeInputs.fill

    def fill(self: DecodeInputs, batch: Any, rows: int, settings: Any, after: Any = None) -> None:
        real(self, batch, rows, settings, after and list(range(len(after))))

    monkeypatch.setattr(DecodeInputs, "fill", fill)


@caught_by(KINDS)
def penalties_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SampleRow, "plain", True)


@caught_by("test_lookahead.py::test_who_is_set_aside_and_comes_back")
def who_starts_over_gets_what_was_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lookahead, "drop", lambda self: None)


@caught_by("test_lookahead.py::test_who_waits_for_a_place")
def who_joins_gets_what_was_queued_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Lookahead._take_queued
    monkeypatch.setattr(Lookahead, "_take_queued", lambda self, scheduled: real(self, scheduled[:1]))


@caught_by("test_lookahead.py::test_a_step_queued_is_used")
def a_step_is_queued_behind_the_last_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scheduler, "ahead", lambda self, scheduled: [one for one, _ in scheduled])


@caught_by(KINDS)
def nobody_asks_for_blocks_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    def ahead(self: Scheduler, scheduled: Any) -> Any:
        return [one for one, _ in scheduled if one.generated + 1 < one.params.max_tokens]

    monkeypatch.setattr(Scheduler, "ahead", ahead)


@caught_by(KINDS)
def tokens_come_back_before_they_are_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(self: DecodeInputs, rows: int, mark: Any) -> Any:
        held: torch.Tensor = self._numbers[0, :rows]
        return lambda: held.tolist()

    monkeypatch.setattr(DecodeInputs, "chosen", chosen)
