"""One planted fault for each rule of a served model's lifecycle.

A fault is a function that breaks the fleet by monkeypatching; its name says what it does wrong.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from engine import DeviceError, Engine, Level
from gateway.errors import ApiError
from gateway.fleet import Fleet, State, actions, cooldown, policy, roster
from gateway.fleet.drain import Drain
from gateway.fleet.idle import Deadlines
from gateway.fleet.lease import Ticket
from gateway.fleet.levels import Levels
from gateway.fleet.operations import Operations
from gateway.fleet.planning import Planning
from gateway.fleet.queue import Queue
from gateway.fleet.room import Option, Room
from gateway.fleet.served_model import ServedModel
from gateway.fleet.snapshot import Model
from gateway.fleet.state import Cause
from tests.gateway.fleet import rules

Fault = Callable[[pytest.MonkeyPatch], None]
FAULTS: dict[str, Fault] = {}


def breaks(rule: rules.Rule) -> Callable[[Fault], Fault]:
    def plant(fault: Fault) -> Fault:
        assert rule.__name__ not in FAULTS
        FAULTS[rule.__name__] = fault
        return fault

    return plant


def see_otherwise(monkeypatch: pytest.MonkeyPatch, change: Callable[[Model], Model]) -> None:
    """The policy sees its models changed."""
    seen = roster.seen_by_policy
    monkeypatch.setattr(roster, "seen_by_policy", lambda model, now: change(seen(model, now)))


def never(monkeypatch: pytest.MonkeyPatch, action: type[actions.Action]) -> None:
    """The fleet forgets to carry out an action."""
    carry_out = Planning._carry_out

    def forget(self: Planning, what: actions.Action) -> None:
        if not isinstance(what, action):
            carry_out(self, what)

    monkeypatch.setattr(Planning, "_carry_out", forget)


# Waking


@breaks(rules.concurrent_requests_share_one_wake)
def every_request_begins_a_wake(monkeypatch: pytest.MonkeyPatch) -> None:
    accept = ServedModel.accept

    def wake_too(self: ServedModel, keep_alive: float | None) -> Ticket:
        ticket = accept(self, keep_alive)
        if self.state is not State.AWAKE:
            self.operation = None
            self.prepare()
        return ticket

    monkeypatch.setattr(ServedModel, "accept", wake_too)


def cancel_when_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    release = ServedModel.release

    def cancel_too(self: ServedModel, ticket: Ticket) -> None:
        release(self, ticket)
        if self.operation and not self.queue.waiting and self.state is State.WAKING:
            self.operation.cancel()

    monkeypatch.setattr(ServedModel, "release", cancel_too)


breaks(rules.a_wake_is_finished_when_all_have_left)(cancel_when_nobody_waits)
breaks(rules.a_download_is_finished_when_all_have_left)(cancel_when_nobody_waits)


@breaks(rules.a_first_wake_is_finished_when_all_leave_while_it_loads)
def begun_wakes_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy._Planner, "finish", lambda self: None)


@breaks(rules.a_failed_wake_gives_back_all_it_took)
def a_failed_wake_keeps_its_promise_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ServedModel, "at_rest", False)
    see_otherwise(monkeypatch, lambda m: replace(m, moving=m.moving or m.state is State.FAILED))


@breaks(rules.a_failed_wake_is_told_to_all_who_wait_and_cools_down)
def cool_downs_do_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cooldown, "LONGEST", cooldown.FIRST)


@breaks(rules.a_wake_by_hand_overrides_the_cool_down)
def a_cool_down_holds_for_hands_too(monkeypatch: pytest.MonkeyPatch) -> None:
    ask = ServedModel.ask

    def refuse(self: ServedModel, cause: Cause, *rest: Any) -> Ticket:
        if self.cooling_seconds:
            raise self.wake_failed()
        return ask(self, cause, *rest)

    monkeypatch.setattr(ServedModel, "ask", refuse)


@breaks(rules.memory_missing_at_the_wake_is_made_once_more)
def a_shortage_at_the_wake_is_final(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        ServedModel, "shortage", property(lambda self: 1, lambda self, value: None), raising=False
    )


@breaks(rules.room_is_made_when_the_engine_finds_less_than_the_system_told)
def the_second_try_makes_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    see_otherwise(monkeypatch, lambda m: replace(m, shortage=0))


@breaks(rules.what_cannot_fit_alone_is_refused_with_numbers)
def room_is_tried_for_what_cannot_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Room, "possible", lambda self, model: math.inf)


@breaks(rules.memory_that_a_busy_model_holds_is_waited_for)
def what_is_busy_counts_as_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    possible = Room.possible

    def less(self: Room, model: Model) -> int:
        return possible(self, model) - sum(m.device_bytes for m in self._snapshot.models if m.active)

    monkeypatch.setattr(Room, "possible", less)


# Sleeping


@breaks(rules.a_timer_cuts_nothing_in_flight)
def the_idle_timer_looks_at_the_clock_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def deadline(self: ServedModel) -> float | None:
        return self.idle_since + self.config.idle_timeout if self.held and not self.drain else None

    drained = ServedModel._sleep_when_drained

    def cut(self: ServedModel) -> None:
        self.queue.abort(lambda: ApiError("idle"))
        drained(self)

    monkeypatch.setattr(ServedModel, "sleep_deadline", deadline)
    monkeypatch.setattr(ServedModel, "_sleep_when_drained", cut)
    see_otherwise(monkeypatch, lambda m: replace(m, active=0))


@breaks(rules.a_model_is_asleep_soon_after_its_idle_timeout)
def idle_models_are_looked_at_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    deadline = ServedModel.sleep_deadline

    def coarse(self: ServedModel) -> float | None:
        due = deadline(self)
        return None if due is None else math.ceil(due)

    monkeypatch.setattr(ServedModel, "sleep_deadline", coarse)


@breaks(rules.the_idle_clock_starts_at_the_last_byte)
def the_idle_clock_starts_with_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    release = ServedModel.release

    def stamp(self: ServedModel, ticket: Ticket) -> None:
        release(self, ticket)
        self.idle_since = ticket.since

    monkeypatch.setattr(ServedModel, "release", stamp)


@breaks(rules.the_idle_clock_starts_at_the_end_of_a_wake_nobody_followed)
def only_a_request_starts_the_idle_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    deadline = ServedModel.sleep_deadline

    def after_requests(self: ServedModel) -> float | None:
        return None if self.idle_since == self.awake_since else deadline(self)

    monkeypatch.setattr(ServedModel, "sleep_deadline", after_requests)


@breaks(rules.a_request_puts_the_sleep_off)
def a_timer_sleeps_without_comparing_stamps(monkeypatch: pytest.MonkeyPatch) -> None:
    def fire(self: Deadlines, name: str) -> None:
        armed = self._armed.pop(name)
        fleets_model: ServedModel = self._deadline.__closure__[0].cell_contents[name]  # type: ignore[attr-defined]
        if self._prefix == "idle" and fleets_model.held:
            fleets_model.idle_since = armed - fleets_model.config.idle_timeout
        self._due(name)

    monkeypatch.setattr(Deadlines, "_fire", fire)


@breaks(rules.a_light_sleeper_sleeps_deeper_after_a_while)
def light_sleepers_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    never(monkeypatch, actions.Deepen)


@breaks(rules.a_newcomer_rescues_a_drain_of_the_idle_timer)
def no_drain_is_rescued(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Drain, "can_be_rescued", property(lambda self: False))


def every_drain_is_rescued(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Drain, "can_be_rescued", property(lambda self: not self.committed))


breaks(rules.newcomers_to_a_drain_for_another_wait_for_their_turn)(every_drain_is_rescued)


@breaks(rules.newcomers_to_a_drain_by_hand_wait_and_wake_it_afterwards)
def a_hand_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    admit = ServedModel._admit

    def let_in(self: ServedModel) -> None:
        if self.hand and self.state is State.DRAINING:
            self.queue.admit(awake=True, held=self.held)
        else:
            admit(self)

    monkeypatch.setattr(ServedModel, "_admit", let_in)


@breaks(rules.a_sleep_by_hand_holds_up_no_turn)
def who_drains_by_hand_is_not_suspended(monkeypatch: pytest.MonkeyPatch) -> None:
    see_otherwise(monkeypatch, lambda m: replace(m, moving=m.moving or m.by_hand))


@breaks(rules.a_turn_goes_on_when_nobody_waits_any_more)
def a_turn_that_is_over_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    never(monkeypatch, actions.Resume)


@breaks(rules.a_model_just_woken_serves_its_least_time)
def there_is_no_least_time(monkeypatch: pytest.MonkeyPatch) -> None:
    see_otherwise(monkeypatch, lambda m: replace(m, awake_since=-math.inf))


@breaks(rules.a_pinned_model_is_slept_by_hand_only)
def pins_do_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    see_otherwise(monkeypatch, lambda m: replace(m, pinned=False))


@breaks(rules.a_pin_by_hand_holds_at_once_and_until_it_is_taken_back)
def nobody_looks_at_who_was_unpinned(monkeypatch: pytest.MonkeyPatch) -> None:
    def pin(self: Fleet, name: str, pinned: bool) -> None:
        self._models[name].pinned = pinned

    monkeypatch.setattr(Fleet, "pin", pin)


@breaks(rules.room_is_not_taken_from_who_was_pinned_by_hand)
def only_timers_heed_a_pin_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    see_otherwise(monkeypatch, lambda m: replace(m, pinned=False))


# keep_alive


@breaks(rules.keep_alive_moves_the_timer_until_the_next_request)
def keep_alive_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    accept = ServedModel.accept

    def keep(self: ServedModel, keep_alive: float | None) -> Ticket:
        return accept(self, self.keep_alive if keep_alive is None else keep_alive)

    monkeypatch.setattr(ServedModel, "accept", keep)


@breaks(rules.keep_alive_protects_from_nothing_else)
def keep_alive_pins(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = roster.seen_by_policy
    monkeypatch.setattr(
        roster,
        "seen_by_policy",
        lambda model, now: replace(seen(model, now), pinned=model.keep_alive == math.inf),
    )


# Suspended


@breaks(rules.what_is_busy_after_its_turn_is_suspended_and_goes_on_later)
def what_is_busy_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    never(monkeypatch, actions.Suspend)


@breaks(rules.who_is_suspended_gets_turns_of_its_own)
def a_turn_begins_before_the_wake(monkeypatch: pytest.MonkeyPatch) -> None:
    see_otherwise(monkeypatch, lambda m: replace(m, awake_since=-math.inf))


@breaks(rules.a_turn_begins_when_what_was_given_up_is_computed_again)
def a_turn_begins_with_the_wake(monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(self: Operations, engine: Engine) -> None:
        await engine.resume()
        self._model.suspended = False

    monkeypatch.setattr(Operations, "_resume", at_once)


@breaks(rules.a_client_that_takes_nothing_holds_no_turn_open)
def no_turn_begins_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(self: Operations, engine: Engine) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Operations, "_catch_up", never)


@breaks(rules.a_turn_may_be_over_at_once)
def nothing_is_asked_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    wait_for = policy._Planner._wait_for

    def later(self: policy._Planner, options: list[Option], waiting: Model) -> None:
        wait_for(self, options, waiting)
        self.again_at = math.inf if self.again_at <= self.now else self.again_at

    monkeypatch.setattr(policy._Planner, "_wait_for", later)


@breaks(rules.nothing_is_suspended_for_a_pinned_model_that_would_keep_its_place)
def pinned_models_are_made_way_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Room, "is_enough_for", lambda self, model, beside: True)


@breaks(rules.a_lowered_limit_holds_soon_after_what_was_in_its_way_has_ended)
def who_comes_too_soon_gets_no_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    def now_or_never(self: Planning, pause: float = 0.0) -> None:
        if self._timers.now() - self._planned_at > pause:
            self.soon()

    monkeypatch.setattr(Planning, "_in_time", now_or_never)


@breaks(rules.nobody_is_woken_for_a_suspended_request_that_has_left)
def who_was_suspended_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    since = ServedModel.waiting_since.fget
    assert since is not None

    def waiting(self: ServedModel) -> float | None:
        return self.turn_ended_at if self.suspended else since(self)

    monkeypatch.setattr(ServedModel, "at_rest", False)
    monkeypatch.setattr(ServedModel, "waiting_since", property(waiting))


@breaks(rules.suspended_requests_end_with_an_error_when_their_model_cannot_be_woken)
def suspended_requests_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Queue, "abort", lambda self, error: None)


@breaks(rules.what_is_suspended_keeps_its_kv_while_there_is_room)
def nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    suspend = ServedModel.suspend

    def forget(self: ServedModel, level: Level, bytes_asleep: int, *, keep_kv: bool) -> None:
        suspend(self, level, bytes_asleep, keep_kv=False)

    monkeypatch.setattr(ServedModel, "suspend", forget)


@breaks(rules.a_sleep_by_hand_waits_for_what_is_suspended)
def who_is_suspended_sleeps_deep_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    put_to_sleep = Fleet._put_to_sleep

    async def stay(self: Fleet, model: ServedModel, level: Level | None, mode: Any) -> Level:
        return 1 if model.suspended else await put_to_sleep(self, model, level, mode)

    monkeypatch.setattr(Fleet, "_put_to_sleep", stay)


# Looking


@breaks(rules.looking_never_wakes_and_never_touches_a_timer)
def looking_is_using(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Fleet.opened

    async def touch(self: Fleet, name: str) -> Engine:
        self._models[name].idle_since = self._timers.now()
        return await opened(self, name)

    monkeypatch.setattr(Fleet, "opened", touch)


# Waiting


@breaks(rules.the_queue_is_bounded)
def who_is_admitted_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Queue, "queued", property(lambda self: len(self.waiting)))


@breaks(rules.nobody_waits_longer_than_max_wait)
def only_the_first_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Queue, "deadline", property(lambda self: None))


@breaks(rules.requests_beyond_the_places_of_an_engine_wait_in_order)
def places_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: Queue, name: str, places: int) -> None:
        init(self, name, 1_000)

    init = Queue.__init__
    monkeypatch.setattr(Queue, "__init__", start)


@breaks(rules.who_has_waited_longest_is_woken_first)
def names_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "_turn_order", lambda model: model.name)


@breaks(rules.no_wait_is_longer_than_a_turn_an_answer_and_two_wakes)
def the_busy_keep_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    never(monkeypatch, actions.EndTurn)


# Leaving and failing


@breaks(rules.a_client_may_leave_at_any_moment)
def who_leaves_the_queue_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    leave = Queue.leave

    def forget(self: Queue, ticket: Ticket) -> bool:
        return False if ticket in self.waiting else leave(self, ticket)

    monkeypatch.setattr(Queue, "leave", forget)


@breaks(rules.a_generation_that_fails_does_not_wedge_the_model)
def a_failure_keeps_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    release = Fleet._release

    def leak(self: Fleet, model: ServedModel, ticket: Ticket) -> None:
        if not isinstance(sys.exc_info()[1], DeviceError):
            release(self, model, ticket)

    monkeypatch.setattr(Fleet, "_release", leak)


@breaks(rules.an_abort_cuts_what_is_in_flight)
def an_abort_is_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Queue, "abort", lambda self, error: None)


@breaks(rules.an_abort_does_not_wait_for_who_does_not_read)
def an_abort_waits_for_its_error_to_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fleet, "_cut", lambda self, model, error: model.queue.abort(error))


@breaks(rules.who_is_behind_with_reading_takes_no_place)
def those_who_do_not_read_keep_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Queue, "set_behind", lambda self, ticket, behind: None)


@breaks(rules.draining_the_server_finishes_what_is_in_flight_and_refuses_the_rest)
def a_draining_server_serves_its_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Queue, "turn_away", lambda self, error: None)


# By hand


@breaks(rules.a_half_woken_model_is_completed_by_what_is_missing)
def half_awake_is_awake(monkeypatch: pytest.MonkeyPatch) -> None:
    rest = ServedModel.rest

    def rise(self: ServedModel, *args: Any) -> None:
        if self.held:
            self.enter(State.AWAKE, "manual")
        else:
            rest(self, *args)

    monkeypatch.setattr(ServedModel, "rest", rise)


@breaks(rules.a_sleep_by_hand_goes_to_the_level_asked_and_never_up)
def sleeps_by_hand_are_light(monkeypatch: pytest.MonkeyPatch) -> None:
    sleep = ServedModel.sleep_by_hand
    monkeypatch.setattr(ServedModel, "sleep_by_hand", lambda self, level, size: sleep(self, 1, size))


@breaks(rules.two_sleeps_by_hand_become_one_at_the_deeper_level)
def the_last_hand_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    sleep = ServedModel.sleep_by_hand

    def override(self: ServedModel, level: Level, bytes_asleep: int) -> Drain:
        drain = sleep(self, level, bytes_asleep)
        drain.level = level
        return drain

    monkeypatch.setattr(ServedModel, "sleep_by_hand", override)


@breaks(rules.a_sleep_by_hand_during_a_wake_follows_it)
def a_sleep_by_hand_does_not_wait_for_the_wake(monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(self: ServedModel) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(ServedModel, "quiet", at_once)


# Levels and room


@breaks(rules.room_on_a_cpu_is_made_at_level_2)
def the_configured_level_holds_always(monkeypatch: pytest.MonkeyPatch) -> None:
    sleep = Planning._sleep

    def shallow(self: Planning, model: ServedModel, level: Level, cause: Cause) -> None:
        sleep(self, model, 1 if model.config.level == 1 else level, cause)

    monkeypatch.setattr(Planning, "_sleep", shallow)


@breaks(rules.parked_weights_stay_within_the_host_limit_and_the_hotter_stays_parked)
def first_come_first_parked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Levels, "colder_than", lambda self, model: [])


@breaks(rules.a_spare_copy_is_room_for_who_falls_asleep)
def copies_of_quiet_models_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roster, "replace", lambda view, **changes: view)


@breaks(rules.a_light_sleep_that_kept_no_weights_is_told_as_a_deep_one)
def the_level_is_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.fleet.operations._weights", lambda model: 1)


@breaks(rules.ram_that_others_take_costs_spare_copies_first)
def spare_copies_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    never(monkeypatch, actions.TrimCopy)


@breaks(rules.kv_that_nobody_uses_goes_before_any_model_sleeps)
def unused_kv_is_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    see_otherwise(monkeypatch, lambda m: replace(m, kv_unused=0))


@breaks(rules.parked_sleepers_make_room_before_idle_models_do)
def parked_sleepers_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Model, "parked", property(lambda self: False))


@breaks(rules.the_least_useful_idle_model_makes_room)
def the_last_used_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Levels, "loss", lambda self, model: -model.last_used)


@breaks(rules.memory_that_others_take_costs_the_coldest_sleepers_first)
def nobody_looks_at_what_the_system_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Planning, "_look_at_memory", lambda self: None)
