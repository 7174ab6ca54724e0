"""One planted fault for each rule of a new configuration for a running fleet, as in ``fleet_faults``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from engine import Engine
from gateway.config import ModelConfig
from gateway.errors import ApiError
from gateway.fleet import Fleet, Lease, reconfigure
from gateway.fleet.budget import Memory
from gateway.fleet.roster import Roster
from gateway.fleet.served_model import ServedModel
from gateway.fleet.snapshot import Model
from tests.gateway.fleet import reload_rules as rules
from tests.mutants.fleet_faults import breaks


@breaks(rules.models_that_a_reload_leaves_as_they_are_notice_nothing)
def every_model_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconfigure, "needs_new_engine", lambda before, after: True)


@breaks(rules.a_removed_model_finishes_what_is_in_flight_and_closes)
def who_is_removed_closes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ServedModel, "leave", ServedModel.close)


@breaks(rules.who_waits_for_a_removed_model_is_told_that_it_is_not_there)
def those_who_wait_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    def dismiss(self: ServedModel, why: Callable[[], ApiError]) -> None:
        self.gone = why

    monkeypatch.setattr(ServedModel, "dismiss", dismiss)


@breaks(rules.settings_that_need_no_other_engine_hold_at_once)
def timers_keep_the_old_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    deadline = ServedModel.sleep_deadline
    first: dict[str, ModelConfig] = {}

    def old(self: ServedModel) -> float | None:
        now, self.config = self.config, first.setdefault(self.name, self.config)
        try:
            return deadline(self)
        finally:
            self.config = now

    monkeypatch.setattr(ServedModel, "sleep_deadline", old)


@breaks(rules.a_pin_by_hand_outlives_a_reload_that_says_the_same_as_before)
def every_reload_says_anew_who_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    def configure(self: ServedModel, config: ModelConfig) -> None:
        self.config, self.pinned = config, config.pinned

    monkeypatch.setattr(ServedModel, "configure", configure)


@breaks(rules.a_replaced_model_serves_newcomers_while_the_old_one_finishes)
def only_the_settings_are_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconfigure, "needs_new_engine", lambda before, after: False)


@breaks(rules.a_request_prepared_for_the_old_engine_never_runs_on_the_new_one)
def token_ids_are_taken_for_everybody_s(monkeypatch: pytest.MonkeyPatch) -> None:
    lease = Fleet.lease

    def any_engine(
        self: Fleet, name: str, *, engine: Engine | None = None, **how: Any
    ) -> AbstractAsyncContextManager[Lease]:
        return lease(self, name, **how)

    monkeypatch.setattr(Fleet, "lease", any_engine)


@breaks(rules.memory_of_a_model_that_leaves_is_not_given_away_twice)
def who_leaves_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    views = Roster.views

    def of_those_who_stay(self: Roster, now: float) -> dict[str, list[Model]]:
        names = {model.name for model in self}
        return {d: [m for m in models if m.name in names] for d, models in views(self, now).items()}

    monkeypatch.setattr(Roster, "views", of_those_who_stay)


@breaks(rules.a_suspended_model_that_leaves_comes_back_to_finish)
def who_leaves_gets_no_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ServedModel, "leaving", property(lambda self: self.gone is not None))


@breaks(rules.a_failed_model_tries_again_with_its_files_as_they_are_now)
def the_cool_down_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ServedModel, "try_again", lambda self: None)


@breaks(rules.limits_and_turns_hold_at_once)
def limits_are_of_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Memory, "configure", lambda self, config: None)
