"""Who has least to lose from sleeping."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.fleet import State
from gateway.fleet.actions import Sleep
from gateway.fleet.events import Transition
from gateway.fleet.policy import plan
from gateway.fleet.ranking import how_soon, least_loss
from gateway.fleet.snapshot import Budget, Model, Snapshot
from gateway.fleet.usage import EDGES, NO_GAPS, Usage, gap_class
from gateway.simulate.baselines import GreedyDualSize, least_recently_used

idle_times = st.floats(0.0, 3e6)


def used_every(*gaps: float, times: int = 50) -> Usage:
    usage = Usage()
    for _ in range(times):
        for gap in gaps:
            usage.asked_after(gap)
    return usage


def awake(name: str, *, idle: float = 60.0, usage: Usage | None = None, size: int = 10) -> Model:
    usage = usage or Usage()
    return Model(
        name=name,
        state=State.AWAKE,
        device_bytes=size,
        weights_bytes=size,
        last_used=1000.0 - idle,
        gaps=usage.gaps,
        wake_rates=usage.wake_rates,
    )


def slept_for_room(*models: Model) -> list[str]:
    """Whom the policy puts to sleep for one that needs as much as the smallest of them holds."""
    used = sum(model.device_bytes for model in models)
    smallest = min(model.device_bytes for model in models)
    waiting = Model(name="waiting", state=State.COLD, to_wake=smallest, waiting_since=1000.0)
    budget = Budget(
        device_limit=used,
        device_used=used,
        device_available=used,
        host_limit=0,
        host_parked=0,
        host_available=0,
        shared_pool=True,
    )
    snapshot = Snapshot(now=1000.0, models=(*models, waiting), budget=budget, min_awake=0.0, turn=0.0)
    return [action.name for action in plan(snapshot).actions if isinstance(action, Sleep)]


@given(idle_times)
def test_classes_hold_their_gaps(gap: float) -> None:
    index = gap_class(gap)
    assert EDGES[index] <= gap
    assert gap < EDGES[index + 1] or index == len(EDGES) - 2


@given(idle_times, st.lists(st.floats(0.0, 1e5), max_size=30))
def test_an_index_is_a_rate(idle: float, gaps: list[float]) -> None:
    usage = used_every(*gaps, times=1)
    assert 0.0 < how_soon(idle, usage.gaps) < 2.0


@given(idle_times, st.floats(4.0, 100.0))
def test_of_models_about_whom_nothing_is_known_the_least_recently_used_goes(
    idle: float, times: float
) -> None:
    assert how_soon(idle, NO_GAPS) >= how_soon((idle + 1.0) * times, NO_GAPS)
    assert how_soon(math.inf, NO_GAPS) == 0.0


@pytest.mark.parametrize("gap", [20.0, 300.0, 4000.0])
def test_steady_use_has_its_rate(gap: float) -> None:
    usage = used_every(gap / 4, gap / 2, gap, gap * 2, gap * 1.25)
    assert how_soon(0.0, usage.gaps) == pytest.approx(1 / gap, rel=0.5)


def test_one_used_often_stays_though_it_was_used_less_recently() -> None:
    often, seldom = used_every(60.0, 120.0), used_every(3000.0, 6000.0)
    models = awake("often", idle=80.0, usage=often), awake("seldom", idle=5.0, usage=seldom)
    assert slept_for_room(*models) == ["seldom"]


def test_a_burst_that_is_over_counts_no_more() -> None:
    bursts = used_every(*[5.0] * 20, 20_000.0)
    steady = used_every(600.0, 900.0)
    assert how_soon(2.0, bursts.gaps) > how_soon(2.0, steady.gaps)
    models = awake("burst", idle=200.0, usage=bursts), awake("steady", idle=300.0, usage=steady)
    assert slept_for_room(*models) == ["burst"]


def test_what_is_quick_to_bring_back_goes_first() -> None:
    quick, slow = Usage(), Usage()
    quick.woken(2, 1000, 1.0)
    slow.woken(2, 1000, 5.0)
    models = awake("slow", idle=60.0, usage=slow), awake("quick", idle=30.0, usage=quick)
    assert slept_for_room(*models) == ["quick"]


def test_wakes_are_measured_by_level() -> None:
    usage = Usage()
    usage.woken(2, 1000, 10.0)
    assert usage.wake_rates[1] == 100.0
    light = usage.wake_rates[0]
    usage.woken(2, 1000, 5.0)
    assert usage.wake_rates == (light, 150.0)
    usage.woken(1, 1000, 1.0)
    assert usage.wake_rates == (1000.0, 150.0)


def test_old_gaps_fade() -> None:
    usage = used_every(10.0)
    for _ in range(400):
        usage.asked_after(1000.0)
    assert usage.gaps[gap_class(10.0)] < 0.05
    assert usage.gaps[gap_class(1000.0)] > 40.0


def test_a_first_use_ends_no_gap() -> None:
    usage = Usage()
    usage.asked_after(math.inf)
    assert usage.gaps == NO_GAPS


def test_lru_looks_at_the_last_use_alone() -> None:
    often = awake("a", idle=80.0, usage=used_every(60.0))
    assert least_recently_used(often, 1000.0, 2) < least_recently_used(awake("b", idle=5.0), 1000.0, 2)
    assert least_loss(often, 1000.0, 2) > 0


def test_greedy_dual_size_raises_its_credits_with_each_that_goes() -> None:
    ranking = GreedyDualSize()
    quick, slow = Usage(), Usage()
    quick.woken(2, 1000, 1.0)
    slow.woken(2, 1000, 5.0)
    first = ranking(awake("quick", usage=quick), 1000.0, 2)
    assert first < ranking(awake("slow", usage=slow), 1000.0, 2)
    ranking.moved(Transition(model="slow", before=State.DRAINING, after=State.ASLEEP, level=2, cause="room"))
    assert ranking(awake("quick", usage=quick), 1000.0, 2) == first, "not used since"
    again = ranking(awake("quick", idle=1.0, usage=quick), 1000.0, 2)
    assert again == pytest.approx(1 / 1000 + 5 / 1000)
