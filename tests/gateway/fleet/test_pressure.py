"""Memory that others take: what nobody uses is given back, sleepers first, before the kernel takes it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from msgspec.structs import replace

from engine import Level
from gateway.fleet import State
from gateway.fleet.actions import Action, Deepen, Refuse, Sleep, TrimCopy, TrimKv
from gateway.fleet.policy import level_that_fits, plan
from gateway.fleet.snapshot import Budget, Model, Snapshot
from tests.gateway.fleet.snapshots import snapshots

ROOMY = Budget(
    device_limit=1000,
    device_used=0,
    device_available=1000,
    host_limit=1000,
    host_parked=0,
    host_available=1000,
    shared_pool=True,
)


def parked(name: str, last_used: float, *, shared: bool = True, **more: object) -> Model:
    model = Model(
        name=name,
        state=State.ASLEEP,
        level=1,
        device_bytes=100 if shared else 0,
        weights_bytes=100,
        host_bytes=100,
        last_used=last_used,
    )
    return replace(model, **more)  # type: ignore[arg-type]


def awake(name: str, last_used: float, **more: object) -> Model:
    model = Model(name=name, state=State.AWAKE, device_bytes=130, weights_bytes=100, kv_unused=30)
    return replace(model, last_used=last_used, awake_since=last_used, **more)  # type: ignore[arg-type]


def told(models: list[Model], **budget: object) -> list[tuple[type, str]]:
    """What is to be done, and to whom."""
    return [(type(action), action.name) for action in planned(models, **budget)]


def planned(models: list[Model], **budget: object) -> tuple[Action, ...]:
    return plan(shown(models, **budget)).actions


def levels(models: list[Model], name: str, **budget: object) -> Level:
    """At which one may sleep now, on a device with memory of its own."""
    return level_that_fits(shown(models, shared_pool=False, **budget), name, "auto")


def shown(models: list[Model], **budget: object) -> Snapshot:
    held = sum(model.device_bytes for model in models)
    host = sum(model.host_bytes for model in models)
    given = replace(ROOMY, device_used=held, host_parked=host)
    given = replace(given, **budget)  # type: ignore[arg-type]
    return Snapshot(now=1000.0, models=tuple(models), budget=given, min_awake=5.0, turn=10.0)


def test_the_coldest_sleepers_go_first_and_no_more_than_needed() -> None:
    models = [parked("warm", 990.0), parked("cold", 10.0), parked("cool", 500.0), awake("a", 5.0)]
    assert told(models, device_available=0) == []
    assert told(models, device_available=-1) == [(Deepen, "cold")]
    assert told(models, device_available=-150) == [(Deepen, "cold"), (Deepen, "cool")]


def test_then_idle_ones_are_trimmed_and_put_to_sleep_but_never_the_pinned_or_busy() -> None:
    models = [
        parked("s", 990.0),
        awake("a", 995.0),
        awake("pinned", 1.0, pinned=True),
        awake("busy", 1000.0, active=1),
    ]
    assert told(models, device_available=-120) == [(Deepen, "s"), (TrimKv, "pinned")]
    everything = told(models, device_available=-900)
    assert set(everything) == {(Deepen, "s"), (Sleep, "a"), (TrimKv, "pinned"), (TrimKv, "busy")}


def test_what_is_being_given_back_already_is_waited_for() -> None:
    falling = parked("falling", 1.0, moving=True, target_bytes=0)
    assert told([falling, parked("s", 2.0)], device_available=-100) == []
    assert told([falling, parked("s", 2.0)], device_available=-101) == [(Deepen, "s")]


def test_a_wake_in_its_middle_is_no_shortage() -> None:
    """What it has filled has left what is available; it is not to be taken off once more."""
    waking = Model(name="w", state=State.WAKING, moving=True, target_bytes=600)
    assert told([waking, parked("s", 1.0), awake("a", 2.0)], device_available=50) == []


def test_nobody_is_refused_for_what_a_wake_in_its_middle_has_taken() -> None:
    """When that is over, it can be put to sleep for the other."""
    waking = Model(name="w", state=State.WAKING, moving=True, target_bytes=600)
    other = Model(name="o", state=State.ASLEEP, level=2, to_wake=500, waiting_since=990.0)
    assert told([waking, other], device_available=300) == []
    woken = awake("w", 990.0, device_bytes=600, kv_unused=0)
    assert told([woken, other], device_available=0) == [(Sleep, "w")]
    too_large = replace(other, to_wake=1001)
    assert told([waking, too_large], device_available=300) == [(Refuse, "o")]


def test_copies_in_host_memory_go_when_the_host_is_short_or_over_its_limit() -> None:
    models = [parked(name, used, shared=False) for name, used in (("warm", 900.0), ("cold", 1.0))]
    assert told(models, shared_pool=False) == []
    assert told(models, shared_pool=False, host_available=-1) == [(Deepen, "cold")]
    assert told(models, shared_pool=False, host_limit=150) == [(Deepen, "cold")]
    assert told(models, shared_pool=False, device_available=-50) == []
    shared = [parked("warm", 900.0), parked("cold", 1.0)]
    assert told(shared, host_limit=150) == [(Deepen, "cold")]


def test_a_warmer_model_pushes_colder_parked_weights_out_of_either_pool() -> None:
    for shared in (True, False):
        cold = parked("cold", 1.0, shared=shared)
        falling = awake("falling", 900.0, due=True)
        assert told([cold, falling], shared_pool=shared, host_limit=150) == [(Deepen, "cold")]
        colder = awake("falling", 0.5, due=True)
        assert told([cold, colder], shared_pool=shared, host_limit=150) == [(Sleep, "falling")]


def test_spare_copies_go_before_sleepers_when_the_host_is_short() -> None:
    models = [
        parked("s", 1.0, shared=False),
        awake("cold", 2.0, host_bytes=100),
        awake("warm", 3.0, host_bytes=100),
    ]
    host = {"shared_pool": False}
    assert told(models, host_available=0, **host) == []
    assert told(models, host_available=-1, **host) == [(TrimCopy, "cold")]
    assert told(models, host_available=-101, **host) == [(TrimCopy, "cold"), (TrimCopy, "warm")]
    all_of_them = [(TrimCopy, "cold"), (TrimCopy, "warm"), (Deepen, "s")]
    assert told(models, host_available=-201, **host) == all_of_them


def test_a_copy_that_is_going_is_waited_for() -> None:
    going = awake("going", 1.0, host_bytes=100, moving=True, target_bytes=130)
    assert told([going, awake("a", 2.0, host_bytes=100)], shared_pool=False, host_available=-100) == []


LEVELS = [
    # Of the two that are awake, the one that sleeps and the other one: their copies; the host's limit and
    # what it has left; the level.
    (0, 0, 100, 100, 1),
    (0, 0, 99, 100, 2),
    (0, 0, 100, 99, 2),
    (0, 100, 100, 0, 1),
    (0, 100, 99, 0, 2),
    (0, 100, 100, -1, 2),
    (100, 0, 100, 0, 1),
    (100, 0, 99, 0, 2),
    (100, 0, 100, -1, 2),
    (100, 100, 100, -1, 1),
]


@pytest.mark.parametrize(("own", "other", "limit", "available", "level"), LEVELS)
def test_a_spare_copy_is_room_and_its_own_is_there_already(
    own: int, other: int, limit: int, available: int, level: int
) -> None:
    models = [awake("a", 1.0, host_bytes=own), awake("other", 2.0, host_bytes=other)]
    assert levels(models, "a", host_limit=limit, host_available=available) == level


def test_a_copy_of_a_sleeper_or_of_one_that_moves_is_no_room() -> None:
    for other in (parked("o", 900.0, shared=False), awake("o", 900.0, host_bytes=100, moving=True)):
        assert levels([awake("a", 1.0), other], "a", host_limit=100) == 2


def test_two_that_fall_asleep_at_once_do_not_both_get_what_is_spare() -> None:
    models = [awake(name, used, due=True) for used, name in enumerate("ab")]
    models.append(awake("spare", 3.0, host_bytes=100))
    for short in ({"host_limit": 100}, {"host_available": 0}):
        asleep = [a for a in planned(models, shared_pool=False, **short) if isinstance(a, Sleep)]
        assert [(action.name, action.level) for action in asleep] == [("a", 1), ("b", 2)]


@settings(max_examples=500)
@given(snapshots())
def test_all_that_may_be_given_back_is_before_a_shortage_is_borne(snapshot: Snapshot) -> None:
    taken = replace(snapshot, budget=replace(snapshot.budget, device_available=-1_000_000))
    acted = {action.name for action in plan(taken).actions}
    for model in snapshot.models:
        can_move = not (model.pinned or model.moving)
        idle = model.active == 0 and (model.waiting_since is None or model.state is State.DRAINING)
        if can_move and model.state is State.AWAKE and idle:
            assert model.name in acted
        if can_move and snapshot.budget.shared_pool and model.parked and model.waiting_since is None:
            assert model.name in acted
    assert plan(taken).again_at > snapshot.now or plan(taken).again_at == math.inf
