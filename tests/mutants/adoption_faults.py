"""One planted fault for each rule of new files for a model that there is, as in ``fleet_faults``."""

from __future__ import annotations

import asyncio

import pytest

from engine import CheckpointError
from gateway.errors import ApiError
from gateway.fleet import Fleet, State, served_model
from gateway.fleet.adoption import Adoption
from gateway.fleet.cooldown import CoolDown
from gateway.fleet.operations import Operations
from gateway.fleet.served_model import ServedModel
from tests.gateway.fleet import adoption_rules as rules
from tests.mutants.fleet_faults import breaks


@breaks(rules.files_are_adopted_when_what_is_in_flight_is_over)
def newcomers_are_admitted_before_files_are(monkeypatch: pytest.MonkeyPatch) -> None:
    admit = ServedModel._admit

    def let_in(self: ServedModel) -> None:
        if self.adoption and self.state is State.DRAINING and not self.operation:
            self.queue.admit(awake=True, held=self.held)
        else:
            admit(self)

    monkeypatch.setattr(ServedModel, "_admit", let_in)


@breaks(rules.who_sleeps_adopts_files_asleep)
def only_the_awake_adopt_files(monkeypatch: pytest.MonkeyPatch) -> None:
    adopt = Fleet._adopt_files

    async def skip(self: Fleet, model: ServedModel) -> None:
        if model.held:
            await adopt(self, model)

    monkeypatch.setattr(Fleet, "_adopt_files", skip)


@breaks(rules.files_are_adopted_between_the_two_tags_of_a_wake)
def half_a_wake_adopts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    adopt = Fleet._adopt_files

    async def skip(self: Fleet, model: ServedModel) -> None:
        if not model.half_woken:
            await adopt(self, model)

    monkeypatch.setattr(Fleet, "_adopt_files", skip)


@breaks(rules.files_that_do_not_fit_change_nothing)
def files_that_do_not_fit_are_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    adopt = Operations._adopt

    async def fail(self: Operations) -> None:
        try:
            await adopt(self)
        except CheckpointError as error:
            raise RuntimeError from error

    monkeypatch.setattr(Operations, "_adopt", fail)


@breaks(rules.weights_lost_over_new_ones_are_a_failure_that_other_files_mend)
def lost_weights_are_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.fleet.operations._weights", lambda model: 0)


@breaks(rules.files_that_are_adopted_end_a_cool_down)
def who_cools_down_goes_on_cooling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CoolDown, "clear", lambda self: None)


@breaks(rules.adopting_waits_for_what_is_suspended)
def the_suspended_are_not_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    heed = ServedModel._heed_hand

    def hurry(self: ServedModel) -> None:
        if self.adoption and self.suspended and not self.operation:
            self._operations.begin(self._operations.adopt_by_hand)
        else:
            heed(self)

    monkeypatch.setattr(ServedModel, "_heed_hand", hurry)


@breaks(rules.adopting_comes_before_a_sleep_by_hand_and_after_a_wake)
def a_sleep_by_hand_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    heed = ServedModel._heed_hand

    def sleep_first(self: ServedModel) -> None:
        adoption = self.adoption
        if self.hand and not self.operation:
            self.adoption = None
        heed(self)
        self.adoption = adoption

    monkeypatch.setattr(ServedModel, "_heed_hand", sleep_first)


@breaks(rules.who_asks_while_files_are_read_has_them_read_again)
def who_asks_late_joins(monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(self: ServedModel) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(ServedModel, "quiet", at_once)


@breaks(rules.room_of_one_that_reads_its_files_again_stays_its_own)
def what_is_read_again_is_not_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    adopt = Operations.adopt_by_hand

    async def forget(self: Operations) -> None:
        self._model.target_bytes = 0
        await adopt(self)

    monkeypatch.setattr(Operations, "adopt_by_hand", forget)


@breaks(rules.who_waits_for_an_adoption_is_told_when_the_fleet_closes)
def nobody_is_told_of_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def keep_quiet(self: Adoption, error: ApiError) -> None:
        """Whoever waits waits on."""

    monkeypatch.setattr(served_model.Adoption, "fail", keep_quiet)
