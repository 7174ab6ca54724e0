"""A replay against numbers worked out by hand, and what holds of every replay."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.simulate.generate import generate, made_up_size
from gateway.simulate.report import figures
from gateway.simulate.trace import Request
from tests.gateway.simulate.machines import FAST, replayed


def ask(at: float, model: str, prompt: int = 1, answer: int = 4) -> Request:
    return Request(at=at, model=model, prompt_tokens=prompt, max_tokens=answer)


async def test_two_models_that_do_not_fit_take_the_time_that_was_worked_out() -> None:
    """Each has 100 bytes and 6 of KV, of 110. ``a`` wakes in 2 s and 100 bytes at 10 a second, and says 4
    tokens in steps of 2 s. It makes room in 1 s. Two requests share the wake of ``b`` and steps of 3 s."""
    outcome = await replayed([ask(0.0, "a"), ask(30.0, "b"), ask(30.0, "b")], {"a": 100, "b": 100}, 110)
    tally = outcome.tally
    assert list(tally.waits) == pytest.approx([12.0, 13.0, 13.0])
    assert (tally.requests, tally.answered, tally.cold) == (3, 3, 3)
    assert (dict(tally.wakes), dict(tally.sleeps)) == ({2: 2}, {2: 1})
    assert outcome.seconds == pytest.approx(30.0 + 13.0 + 4 * 3.0)
    assert outcome.bytes_moved == 200
    assert outcome.used_share == pytest.approx(106 / 110)
    assert outcome.busy_share == pytest.approx((8.0 + 12.0) / 55.0 * 106 / 110)


async def test_a_device_of_its_own_parks_weights_in_the_host() -> None:
    """``a`` is copied while it is read, and back at 100 bytes a second; for ``b`` there is no room."""
    outcome = await replayed([ask(0.0, "a"), ask(30.0, "b"), ask(70.0, "a")], {"a": 100, "b": 100}, 110, 100)
    assert list(outcome.tally.waits) == pytest.approx([12.0, 12.5, 1.0 + 0.5 + 1.0])
    assert dict(outcome.tally.wakes) == {2: 2, 1: 1}


async def test_a_spare_copy_makes_room_for_who_falls_asleep() -> None:
    """``a`` stays awake; ``b``, which has no copy yet, is copied out in a second for the sake of ``c``."""
    trace = [ask(0.0, "a"), ask(30.0, "b"), ask(60.0, "a"), ask(70.0, "c"), ask(100.0, "b")]
    sizes = dict.fromkeys("abc", 100)
    outcome = await replayed(trace, sizes, 220, 100)
    assert list(outcome.tally.waits) == pytest.approx([12.0, 12.0, 0.0, 0.5 + 1.0 + 12.0, 1.0 + 0.5 + 1.0])
    assert dict(outcome.tally.wakes) == {2: 3, 1: 1}


async def test_two_busy_models_share_the_device() -> None:
    """In turn they make steps of 2 s each; both are awake from the 22nd second on, for the disk is shared."""
    outcome = await replayed([ask(0.0, "a"), ask(0.0, "b")], {"a": 100, "b": 100}, 220)
    assert list(outcome.tally.waits) == pytest.approx([22.0, 22.0])
    assert outcome.seconds == pytest.approx(22.0 + 4 * 4.0)


async def test_a_prompt_is_computed_in_chunks() -> None:
    outcome = await replayed([ask(0.0, "a", prompt=128, answer=1)], {"a": 100}, 110)
    assert outcome.seconds == pytest.approx(12.0 + 2 * 65.0)


async def test_who_stands_in_the_way_is_suspended_and_goes_on_later() -> None:
    outcome = await replayed([ask(0.0, "a", answer=50), ask(20.0, "b")], {"a": 100, "b": 100}, 117)
    assert outcome.tally.answered == 2
    assert max(outcome.tally.waits) < 60.0, "b did not wait for all of a's answer, which takes 100 s"
    assert outcome.tally.wakes[2] == 3


async def test_what_can_never_fit_is_refused() -> None:
    outcome = await replayed([ask(0.0, "a"), ask(1.0, "b")], {"a": 200, "b": 50}, 110)
    assert dict(outcome.tally.refused) == {503: 1}
    assert outcome.tally.answered == 1


loads = st.sampled_from(["zipf", "daily", "bursts"])


@settings(max_examples=25)
@given(loads, st.integers(0, 1000), st.integers(20, 60), st.sampled_from([None, 20]), st.integers(1, 200))
async def test_every_request_is_answered_or_refused_once(
    load: str, seed: int, device: int, host: int | None, seconds: int
) -> None:
    trace = list(generate(load, models=6, requests=60, seconds=float(seconds), seed=seed))  # type: ignore[arg-type]
    sizes = {request.model: made_up_size(request.model, seed) for request in trace}
    giga = 10**9
    outcome = await replayed(
        trace,
        sizes,
        device * giga,
        host and host * giga,
        costs=FAST,
        **{name: {"max_waiting": 5} for name in sizes},
    )
    tally = outcome.tally
    assert tally.requests == len(trace) == tally.answered + sum(tally.refused.values())
    assert len(tally.waits) >= tally.answered
    assert tally.cold <= tally.requests
    assert all(0.0 <= wait <= 120.1 for wait in tally.waits)
    assert 0.0 < outcome.busy_share <= outcome.used_share
    assert sum(tally.wakes.values()) - sum(tally.sleeps.values()) <= len(sizes)


async def test_a_pinned_model_never_sleeps() -> None:
    trace = [ask(20.0 * number, "abc"[number % 3], answer=1) for number in range(60)]
    sizes = dict.fromkeys("abc", 10**9)
    free = await replayed(trace, sizes, 22 * 10**8, costs=FAST)
    pinned = await replayed(trace, sizes, 22 * 10**8, costs=FAST, a={"pinned": True})
    assert free.tally.cold > 21
    assert pinned.tally.cold == 1 + 20 + 20, "the other two have one place"
    assert list(pinned.tally.waits)[3::3] == [0.0] * 19


async def test_policies_differ_and_each_repeats_itself() -> None:
    trace = list(generate("zipf", models=12, requests=400, seconds=6000.0, seed=3))
    sizes = {request.model: made_up_size(request.model, 3) for request in trace}

    async def result(policy: str) -> dict[str, object]:
        return figures(await replayed(trace, sizes, 20 * 10**9, costs=FAST, policy=policy))

    results = {policy: await result(policy) for policy in ("lru", "gds", "dormouse")}
    assert len({str(figures["cold_share"]) for figures in results.values()}) > 1
    assert results == {policy: await result(policy) for policy in results}
    assert results["dormouse"]["cold_share"] < results["lru"]["cold_share"]  # type: ignore[operator]
