"""The policy's promises, on thousands of generated situations.

A promise is a function of a snapshot; one test holds all of them against each snapshot, for generating a
situation costs more than judging it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from hypothesis import assume, given, settings
from msgspec.structs import replace

from gateway.fleet import State
from gateway.fleet.actions import (
    Deepen,
    EndTurn,
    ForgetKv,
    Refuse,
    Resume,
    Sleep,
    Suspend,
    TrimCopy,
    TrimKv,
    Wake,
)
from gateway.fleet.policy import level_that_fits, plan
from gateway.fleet.snapshot import Model, Snapshot
from tests.gateway.fleet.snapshots import obey, snapshots

Promise = Callable[[Snapshot], None]
PROMISES: list[Promise] = []


def promise(check: Promise) -> Promise:
    PROMISES.append(check)
    return check


@settings(max_examples=1000)
@given(snapshots())
def test_promises(snapshot: Snapshot) -> None:
    for check in PROMISES:
        check(snapshot)


def by_name(snapshot: Snapshot) -> dict[str, Model]:
    return {model.name: model for model in snapshot.models}


def unused(snapshot: Snapshot) -> int:
    budget = snapshot.budget
    return min(budget.device_limit - budget.device_used, budget.device_available)


def promised(snapshot: Snapshot) -> int:
    return sum(max(0, m.target_bytes - m.device_bytes) for m in snapshot.models if m.moving)


def released(snapshot: Snapshot) -> int:
    return sum(max(0, m.device_bytes - m.target_bytes) for m in snapshot.models if m.moving)


def shortage(snapshot: Snapshot) -> int:
    return max(0, promised(snapshot) - unused(snapshot))


def floor_of_others(snapshot: Snapshot, model: Model) -> int:
    """What the others hold when all that may sleep sleeps."""
    return sum(
        (max(other.device_bytes, other.target_bytes) if other.moving else other.device_bytes)
        if other.pinned
        else other.residue_bytes
        for other in snapshot.models
        if other is not model
    )


@promise
def actions_are_possible(snapshot: Snapshot) -> None:
    models = by_name(snapshot)
    actions = plan(snapshot).actions
    assert len({action.name for action in actions}) == len(actions), "one action a model"
    for action in actions:
        model = models[action.name]
        assert not model.moving
        match action:
            case Wake() | Refuse():
                assert model.waits_for_room
            case Sleep():
                assert model.active == 0
                assert model.awake or model.half_woken
            case Deepen():
                assert model.level == 1
                assert not model.awake
            case EndTurn():
                assert model.state is State.AWAKE
            case Resume():
                assert model.state is State.DRAINING
            case Suspend():
                assert model.state is State.DRAINING
                assert model.active
            case ForgetKv():
                assert model.kv_used and not model.awake
            case TrimKv():
                assert model.kv_unused > 0
            case TrimCopy():
                assert model.spare_bytes > 0


@promise
def pinned_models_are_left_alone(snapshot: Snapshot) -> None:
    for action in plan(snapshot).actions:
        if by_name(snapshot)[action.name].pinned:
            assert isinstance(action, Wake | Refuse | Resume | TrimKv | TrimCopy | ForgetKv)


@promise
def wakes_never_take_more_than_there_is(snapshot: Snapshot) -> None:
    wakes = [by_name(snapshot)[a.name] for a in plan(snapshot).actions if isinstance(a, Wake)]
    if wakes:
        assert sum(model.to_wake for model in wakes) <= unused(snapshot) - promised(snapshot)


@promise
def nothing_sleeps_for_nothing(snapshot: Snapshot) -> None:
    waiting = any(model.waits_for_room for model in snapshot.models)
    short = unused(snapshot) - promised(snapshot) + released(snapshot) < 0
    due = {model.name for model in snapshot.models if model.due}
    over = snapshot.budget.host_parked > snapshot.budget.host_limit
    for action in plan(snapshot).actions:
        if isinstance(action, Sleep | TrimKv | ForgetKv | EndTurn | Suspend) and not (waiting or short):
            assert action.name in due
        if isinstance(action, Deepen) and not waiting and not short and action.name not in due:
            assert due or over, "pushed by a hotter one that falls asleep"
        if isinstance(action, TrimCopy):
            assert over


@promise
def min_awake_and_turn_are_kept(snapshot: Snapshot) -> None:
    models = by_name(snapshot)
    waits = [m.waiting_since for m in snapshot.models if m.waits_for_room and m.waiting_since is not None]
    for action in plan(snapshot).actions:
        model = models[action.name]
        if isinstance(action, Sleep) and action.cause in ("room", "turn") and not model.half_woken:
            assert model.due or model.awake_since + snapshot.min_awake <= snapshot.now
        if isinstance(action, EndTurn):
            assert max(min(waits), model.awake_since) + snapshot.turn <= snapshot.now
        if isinstance(action, Suspend):
            assert model.turn_ended_at < snapshot.now


@promise
def levels_suit_the_memory(snapshot: Snapshot) -> None:
    models, budget = by_name(snapshot), snapshot.budget
    parked = 0
    spare = sum(model.spare_bytes for model in snapshot.models)
    for action in plan(snapshot).actions:
        model = models[action.name]
        if isinstance(action, Deepen):
            parked -= model.host_bytes
        if isinstance(action, Sleep):
            if budget.shared_pool and action.cause != "idle":
                assert action.level == 2
            if model.preferred_level == 2:
                assert action.level == 2
            if action.level == 1:
                there = 0 if budget.shared_pool else model.host_bytes - model.spare_bytes
                parked += model.weights_bytes - there
    if parked > 0:
        assert parked <= budget.host_limit - budget.host_parked + spare


@promise
def only_what_cannot_fit_is_refused(snapshot: Snapshot) -> None:
    actions = plan(snapshot).actions
    refused = {action.name for action in actions if isinstance(action, Refuse)}
    if unused(snapshot) < 0:
        return  # first of all what is too much is given back
    budget = snapshot.budget
    for model in snapshot.models:
        others = [m for m in snapshot.models if m is not model and m.moving and not m.pinned]
        filled = sum(max(0, m.target_bytes - m.device_bytes) for m in others)
        outside = min(budget.device_limit, budget.device_used + budget.device_available + filled)
        gives_way = any(action.name == model.name for action in actions) and model.name not in refused
        if model.waits_for_room and not gives_way and not model.kv_used:
            fits = floor_of_others(snapshot, model) + model.device_bytes + model.to_wake <= outside
            assert (model.name in refused) == (not fits)


@promise
def first_in_turn_is_never_stuck(snapshot: Snapshot) -> None:
    """Something is done for it, is under way, or will be at a known time; or others are refused, after which
    the fleet asks again."""
    answer = plan(snapshot)
    refused = {action.name for action in answer.actions if isinstance(action, Refuse)}
    waiting = [m for m in snapshot.models if m.waits_for_room and m.name not in refused]
    under_way = any(m.moving or (m.turn_over and m.active) for m in snapshot.models)
    if waiting and not refused:
        useful = [a for a in answer.actions if not isinstance(a, Refuse | Resume)]
        assert useful or under_way or answer.again_at < math.inf
    assert answer.again_at > snapshot.now


@promise
def who_waits_longest_wakes_if_it_fits(snapshot: Snapshot) -> None:
    first = min(
        (m for m in snapshot.models if m.waits_for_room),
        key=lambda m: (m.waiting_since, m.last_used),
        default=None,
    )
    room = unused(snapshot) - promised(snapshot)
    if first is not None and room >= first.to_wake and first.waiting_since is not None:
        assert Wake(first.name) in plan(snapshot).actions


@promise
def order_of_models_does_not_decide(snapshot: Snapshot) -> None:
    """Only what is told of the models counts, as long as no two of them are alike."""
    if len({model.last_used for model in snapshot.models}) == len(snapshot.models):
        reordered = replace(snapshot, models=tuple(reversed(snapshot.models)))
        assert set(plan(reordered).actions) == set(plan(snapshot).actions)


@settings(max_examples=200)
@given(snapshots())
def test_everybody_gets_a_turn(snapshot: Snapshot) -> None:
    """Obeyed step after step, the policy serves all who wait, and never holds more than allowed."""
    short = shortage(snapshot)
    for _ in range(60):
        snapshot = obey(snapshot, plan(snapshot).actions, seconds=1.0)
        assert shortage(snapshot) <= short, "no plan makes a shortage, or worsens one"
        short = shortage(snapshot)
        if not any(model.waits_for_room for model in snapshot.models):
            break
    assert not any(model.waits_for_room for model in snapshot.models)


@settings(max_examples=200)
@given(snapshots())
def test_everybody_gets_a_turn_though_no_request_ends(snapshot: Snapshot) -> None:
    """Even what nobody may put to sleep by itself makes room: it is suspended, and waits for its own turn.
    Not for a pinned one, which would never give the room back."""
    assume(not any(model.pinned and model.waiting_since is not None for model in snapshot.models))
    waiting = {model.name for model in snapshot.models if model.waits_for_room}
    refused = set[str]()
    for _ in range(200):
        actions = plan(snapshot).actions
        refused |= {action.name for action in actions if isinstance(action, Refuse)}
        snapshot = obey(snapshot, actions, seconds=1.0, endless=True)
        waiting -= {model.name for model in snapshot.models if model.awake} | refused
    assert not waiting


@promise
def level_by_hand_is_never_lighter_than_asked(snapshot: Snapshot) -> None:
    for model in snapshot.models:
        assert level_that_fits(snapshot, model.name, 2) == 2
        if level_that_fits(snapshot, model.name, 1) == 1:
            spare = sum(model.spare_bytes for model in snapshot.models)
            assert snapshot.budget.host_parked - spare <= snapshot.budget.host_limit
