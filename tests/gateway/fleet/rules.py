"""The rules of a served model's lifecycle, each as a check that fails when the rule is broken.

``test_lifecycle`` runs them on the fleet as it is; ``tests/mutants`` on fleets with a planted fault each.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from engine import CheckpointError, DeviceError, GenerateRequest, OutOfMemory, SamplingParams
from gateway.config import Size, TurnConfig
from gateway.errors import ModelAsleep, ModelWakeFailed, QueueFull, ShuttingDown, WaitTimeout
from gateway.fleet import State, Transition
from tests.fake_engine import MIB, FakeSpec
from tests.gateway.fleet.world import Answer, World, world

Rule = Callable[[], Awaitable[None]]
RULES: dict[str, Rule] = {}

AWAKE = (State.AWAKE, None)


def rule(check: Rule) -> Rule:
    RULES[check.__name__] = check
    return check


def two_that_do_not_fit(**spec: float) -> dict[str, FakeSpec]:
    return {name: FakeSpec(weights=600 * MIB, wake_seconds=1.0, **spec) for name in ("a", "b")}  # type: ignore[arg-type]


# Waking


@rule
async def concurrent_requests_share_one_wake() -> None:
    async with world({"a": FakeSpec(wake_seconds=1.0)}) as w:
        asked = [w.ask("a", f"prompt {i}") for i in range(64)]
        await w.advance(2.0)
        assert [task.result().text for task in asked] == [f"Hello from a: prompt {i}" for i in range(64)]
        assert w.calls("a", "wake") == 1
        assert w.calls("a", "load") == 1


@rule
async def a_wake_is_finished_when_all_have_left() -> None:
    async with world({"a": FakeSpec(wake_seconds=1.0)}) as w:
        asked = w.ask("a")
        await w.advance(0.5)
        asked.cancel()
        await w.advance(1.0)
        assert w.state("a") == AWAKE
        await w.answered("a")
        assert w.calls("a", "wake") == 1


@rule
async def a_first_wake_is_finished_when_all_leave_while_it_loads() -> None:
    async with world({"a": FakeSpec(load_seconds=1.0, wake_seconds=1.0)}) as w:
        asked = w.ask("a")
        await w.advance(0.5)
        asked.cancel()
        await w.advance(2.0)
        assert w.state("a") == AWAKE
        assert w.calls("a", "wake") == 1


@rule
async def a_download_is_finished_when_all_have_left() -> None:
    async with world({"a": FakeSpec(load_seconds=500.0)}, a={"max_wait": 10.0}) as w:
        asked = w.ask("a")
        await w.advance(11.0)
        assert isinstance(asked.exception(), WaitTimeout)
        assert w.state("a") == (State.WAKING, None)
        await w.advance(500.0)
        assert w.state("a") == AWAKE
        assert (await w.answered("a")).waited < 1.0
        assert w.calls("a", "load") == 1


@rule
async def a_failed_wake_gives_back_all_it_took() -> None:
    async with world(two_that_do_not_fit(), total=900 * MIB) as w:
        w.spec("a").failures["wake"] = [CheckpointError("/secret", reason="a file has changed")]
        asked = w.ask("a")
        await w.advance(2.0)
        assert isinstance(asked.exception(), ModelWakeFailed)
        assert w.engine("a").footprint().weights == 0
        await w.answered("b", within=5.0)


@rule
async def a_failed_wake_is_told_to_all_who_wait_and_cools_down() -> None:
    async with world({"a": FakeSpec(wake_seconds=1.0), "b": FakeSpec()}, a={"idle_timeout": 1.0}) as w:
        await w.answered("a")
        await w.advance(5.0)
        assert w.state("a") == (State.ASLEEP, 1)
        pauses = []
        for _ in range(9):
            w.spec("a").failures["wake"] = [CheckpointError("/secret", reason="a file has changed")]
            asked = [w.ask("a") for _ in range(3)]
            await w.advance(0.2)
            for task in asked:
                error = task.exception()
                assert isinstance(error, ModelWakeFailed)
                assert "a file has changed" in error.message
                assert "/secret" not in error.message
            assert w.state("a") == (State.FAILED, 1), "keeps the level that it fell from"
            at_once = w.ask("a")
            await w.advance()
            error = at_once.exception()
            assert isinstance(error, ModelWakeFailed)
            assert error.retry_after is not None
            pauses.append(round(error.retry_after + 0.1))
            await w.advance(error.retry_after)
        assert pauses == [5, 10, 20, 40, 80, 160, 300, 300, 300]
        await w.answered("b")
        await w.answered("a")
        assert w.state("a") == AWAKE
        w.spec("a").failures["wake"] = [CheckpointError("gone")]
        await w.fleet.sleep("a", 2)
        asked_again = w.ask("a")
        await w.advance(1.5)
        error = asked_again.exception()
        assert isinstance(error, ModelWakeFailed)
        assert error.retry_after is not None
        assert 4.0 < error.retry_after <= 5.0, "a success makes the next cool-down short again"


@rule
async def a_wake_by_hand_overrides_the_cool_down() -> None:
    async with world({"a": FakeSpec()}) as w:
        w.spec("a").failures["wake"] = [CheckpointError("gone")]
        asked = w.ask("a")
        await w.advance(1.0)
        assert isinstance(asked.exception(), ModelWakeFailed)
        woken = w.begin(w.fleet.wake("a"))
        await w.advance(0.1)
        assert woken.result()
        assert w.state("a") == AWAKE


@rule
async def memory_missing_at_the_wake_is_made_once_more() -> None:
    async with world({"a": FakeSpec(), "b": FakeSpec()}) as w:
        await w.answered("b")
        w.spec("a").failures["wake"] = [OutOfMemory(110 * MIB, 90 * MIB)]
        await w.answered("a")
        assert w.calls("a", "wake") == 2
        w.spec("b").failures["wake"] = [OutOfMemory(110 * MIB, 90 * MIB) for _ in range(3)]
        await w.fleet.sleep("b", 2)
        asked = w.ask("b")
        await w.advance(1.0)
        error = asked.exception()
        assert isinstance(error, ModelWakeFailed)
        assert "110 MiB needed, 90 MiB available" in error.message
        assert len(w.spec("b").failures["wake"]) == 1


@rule
async def room_is_made_when_the_engine_finds_less_than_the_system_told() -> None:
    async with world({"a": FakeSpec(), "b": FakeSpec()}) as w:
        await w.answered("b")
        w.spec("a").failures["wake"] = [OutOfMemory(110 * MIB, 0)]
        w.backend.foreign = 600 * MIB
        await w.answered("a")
        assert w.state("a") == AWAKE
        assert w.state("b") == AWAKE, "there was room enough for both"
        w.backend.foreign = 700 * MIB
        await w.fleet.sleep("a", 2)
        w.spec("a").failures["wake"] = [OutOfMemory(110 * MIB, 0)]
        await w.answered("a")
        assert w.state("b") == (State.ASLEEP, 2), "made room for what was missing"


@rule
async def what_cannot_fit_alone_is_refused_with_numbers() -> None:
    async with world({"a": FakeSpec(weights=2000 * MIB), "b": FakeSpec()}) as w:
        await w.answered("b")
        asked = w.ask("a")
        await w.advance(0.1)
        error = asked.exception()
        assert isinstance(error, ModelWakeFailed)
        assert "needs 2.0 GiB" in error.message
        assert "allows 1.0 GiB" in error.message
        assert w.state("b") == AWAKE, "nobody is put to sleep for nothing"
        assert w.calls("a", "wake") == 0


@rule
async def memory_that_a_busy_model_holds_is_waited_for() -> None:
    turns = TurnConfig(min_awake=0.0, turn=1.0)
    async with world(two_that_do_not_fit(token_seconds=1.0), turns=turns) as w:
        first = w.ask("a", tokens=5)
        await w.advance(2.0)
        second = w.ask("b", tokens=1)
        await w.advance(9.0)
        assert first.result().text == "Hello"
        assert second.result().text == "H"


# Sleeping


@rule
async def a_timer_cuts_nothing_in_flight() -> None:
    async with world({"a": FakeSpec(token_seconds=1.0)}, a={"idle_timeout": 0.25}) as w:
        answer = await w.answered("a", tokens=10)
        assert answer.text == "Hello from"
        assert w.calls("a", "wake") == 1


@rule
async def a_model_is_asleep_soon_after_its_idle_timeout() -> None:
    specs = {"a": FakeSpec(token_seconds=0.1), "b": FakeSpec()}
    async with world(specs, a={"idle_timeout": 0.25}, b={"idle_timeout": 20.0}) as w:
        for _ in range(10):
            answer = await w.answered("a", tokens=3)
            await w.advance(answer.at + 0.25 * 0.95 - w.timers.now())
            assert w.state("a") == AWAKE
            await w.advance(answer.at + 0.25 * 1.5 - w.timers.now())
            assert w.state("a") == (State.ASLEEP, 1)


@rule
async def the_idle_clock_starts_at_the_last_byte() -> None:
    async with world({"a": FakeSpec(token_seconds=1.0)}, a={"idle_timeout": 10.0}) as w:
        answer = await w.answered("a", tokens=8)
        await w.advance(answer.at + 9.9 - w.timers.now())
        assert w.state("a") == AWAKE
        await w.advance(0.2)
        assert w.state("a")[0] is State.ASLEEP


@rule
async def the_idle_clock_starts_at_the_end_of_a_wake_nobody_followed() -> None:
    specs = {"a": FakeSpec(wake_seconds=5.0)}
    async with world(specs, open_first=False, a={"idle_timeout": 10.0, "preload": True}) as w:
        await w.fleet.opened("a")
        await w.advance(4.0)
        assert not w.fleet.ready
        await w.advance(10.9)
        assert w.fleet.ready
        assert w.state("a") == AWAKE
        await w.advance(0.2)
        assert w.state("a") == (State.ASLEEP, 1)
        woken = w.begin(w.fleet.wake("a"))
        await w.advance(10.4)
        assert woken.result()
        assert w.state("a") == AWAKE
        await w.advance(0.2)
        assert w.state("a") == (State.ASLEEP, 1)


@rule
async def a_request_puts_the_sleep_off() -> None:
    async with world({"a": FakeSpec()}, a={"idle_timeout": 10.0}) as w:
        for _ in range(5):
            await w.answered("a")
            await w.advance(9.0)
        assert w.state("a") == AWAKE
        assert w.calls("a", "wake") == 1
        await w.advance(1.0)
        assert w.state("a") == (State.ASLEEP, 1)


@rule
async def a_light_sleeper_sleeps_deeper_after_a_while() -> None:
    config = {"idle_timeout": 10.0, "deepen_after": 100.0}
    async with world(
        {"a": FakeSpec(), "b": FakeSpec()}, a=config, b=config | {"deepen_after": math.inf}
    ) as w:
        await w.answered("a")
        await w.answered("b")
        await w.advance(105.0)
        assert w.state("a") == (State.ASLEEP, 1)
        await w.advance(10.0)
        assert w.state("a") == (State.ASLEEP, 2)
        assert w.state("b") == (State.ASLEEP, 1)


@rule
async def a_newcomer_rescues_a_drain_of_the_idle_timer() -> None:
    async with world({"a": FakeSpec()}, a={"idle_timeout": 10.0}) as w:
        await w.answered("a")
        newcomers: list[asyncio.Task[Answer]] = []

        def come_in(transition: Transition) -> None:
            if transition.after is State.DRAINING:
                newcomers.append(w.ask("a"))

        w.fleet.events.subscribe(come_in)
        await w.advance(11.0)
        assert len(newcomers) == 1
        assert newcomers[0].result().waited == 0.0
        assert w.state("a") == AWAKE
        assert (w.calls("a", "sleep"), w.calls("a", "wake")) == (0, 1)


@rule
async def newcomers_to_a_drain_by_hand_wait_and_wake_it_afterwards() -> None:
    async with world({"a": FakeSpec(token_seconds=1.0, wake_seconds=1.0)}) as w:
        first = w.ask("a", tokens=5)
        await w.advance(2.5)
        sleeping = w.begin(w.fleet.sleep("a", 2))
        await w.advance()
        assert w.state("a")[0] is State.DRAINING
        newcomers = [w.ask("a", tokens=1) for _ in range(3)]
        await w.advance(1.0)
        assert not first.done()
        assert w.fleet.status_of("a").queued == 3
        await w.advance(10.0)
        assert first.result().text == "Hello", "nothing is cut"
        assert sleeping.result() == 2
        assert w.calls("a", "sleep") == 1
        assert w.calls("a", "wake") == 2
        assert all(task.result().text == "H" for task in newcomers)


@rule
async def newcomers_to_a_drain_for_another_wait_for_their_turn() -> None:
    turns = TurnConfig(min_awake=0.0, turn=2.0)
    async with world(two_that_do_not_fit(token_seconds=1.0), turns=turns) as w:
        long = w.ask("a", tokens=10)
        await w.advance(2.0)
        other = w.ask("b", tokens=1)
        await w.advance(1.0)
        before = w.ask("a", tokens=1)
        await w.advance(0.1)
        assert before.done() is False
        assert w.fleet.status_of("a").queued == 1, "admitted, in its first step: its turn is not over"
        await w.advance(1.0)
        assert before.result().waited == 0.0
        assert w.state("a")[0] is State.DRAINING, "its turn is over"
        newcomer = w.ask("a", tokens=1)
        await w.advance()
        assert w.engine("a").running == 1
        await w.advance(20.0)
        assert long.result().text == "Hello from"
        assert other.result().at < newcomer.result().at
        assert w.calls("a", "sleep") == 1


@rule
async def a_turn_goes_on_when_nobody_waits_any_more() -> None:
    turns = TurnConfig(min_awake=0.0, turn=2.0)
    async with world(two_that_do_not_fit(token_seconds=1.0), turns=turns) as w:
        long = w.ask("a", tokens=10)
        await w.advance(2.0)
        other = w.ask("b")
        await w.advance(2.1)
        assert w.state("a")[0] is State.DRAINING
        newcomer = w.ask("a", tokens=1)
        await w.advance()
        other.cancel()
        await w.advance(1.5)
        assert newcomer.result().text == "H"
        assert w.state("a") == AWAKE
        await w.advance(20.0)
        assert long.done()
        assert w.calls("a", "sleep") == 0


@rule
async def what_is_busy_after_its_turn_is_suspended_and_goes_on_later() -> None:
    turns = TurnConfig(min_awake=0.0, turn=2.0)
    async with world(two_that_do_not_fit(token_seconds=0.5), turns=turns) as w:
        long = w.ask("a", tokens=100)
        await w.advance(3.0)
        other = w.ask("b", tokens=2)
        await w.advance(2.1)
        assert not w.engine("a").suspended, "it may end by itself for a moment"
        await w.advance(2.2)
        assert other.result().waited == pytest.approx(2.0 + 0.2 + 1.0, abs=0.2)
        assert w.fleet.status_of("a").in_flight == 1
        await w.advance(30.0)
        assert long.result().text == "Hello from a: x"
        assert (w.calls("a", "suspend"), w.calls("a", "sleep"), w.calls("a", "wake")) == (1, 1, 2)


@rule
async def who_is_suspended_gets_turns_of_its_own() -> None:
    """Two that never end by themselves, whose wakes take longer than a turn."""
    turns = TurnConfig(min_awake=0.0, turn=0.5)
    specs = two_that_do_not_fit(token_seconds=0.125, reply="x" * 200)
    async with world(specs, turns=turns) as w:
        asked = [w.ask(name, tokens=150) for name in "ab"]
        await w.advance(150 * 0.125 * 2 + 100 * 1.6)
        assert [len(task.result().text) for task in asked] == [150, 150]
        assert min(w.calls(name, "suspend") for name in "ab") > 5


@rule
async def a_turn_begins_when_what_was_given_up_is_computed_again() -> None:
    """Prompts that take longer than a turn: nobody would get anywhere."""
    turns = TurnConfig(min_awake=0.0, turn=1.0)
    specs = two_that_do_not_fit(token_seconds=0.1, prompt_seconds=5.0, first_kv=50 * MIB, reply="x" * 40)
    async with world(specs, total=655 * MIB, turns=turns) as w:
        answers = [w.ask(name, tokens=40) for name in "aabb"]
        await w.advance(100.0)
        assert all(answer.result().text == "x" * 40 for answer in answers)
        assert all(2 <= w.calls(name, "sleep") <= 6 for name in "ab")


@rule
async def a_client_that_takes_nothing_holds_no_turn_open() -> None:
    """What counts is that the engine has gone on, not that somebody has taken the tokens."""
    turns = TurnConfig(min_awake=0.0, turn=1.0)
    async with world(two_that_do_not_fit(token_seconds=0.1, reply="x" * 4000), turns=turns) as w:

        async def stall() -> None:
            request = GenerateRequest(prompt_ids=[65], sampling=SamplingParams(max_tokens=4000))
            async with w.fleet.lease("a") as lease:
                async for _ in lease.generate(request):
                    await w.timers.sleep(1000.0)

        stalled, busy = w.begin(stall()), w.ask("a", tokens=400)
        await w.advance(3.0)
        for _ in range(3):
            assert (await w.answered("b", tokens=1, within=5.0)).waited < 4.0
            await w.advance(3.0)
        for task in (stalled, busy):
            task.cancel()
        await w.advance()


@rule
async def a_turn_may_be_over_at_once() -> None:
    async with world(two_that_do_not_fit(token_seconds=0.1, reply="x" * 400)) as w:
        busy = w.ask("a", tokens=200)
        await w.advance(2.0)
        assert (await w.answered("b", tokens=1, within=3.0)).waited < 2.0
        await w.advance(60.0)
        assert busy.result().text == "x" * 200


@rule
async def nobody_is_woken_for_a_suspended_request_that_has_left() -> None:
    turns = TurnConfig(min_awake=0.0, turn=1.0)
    async with world(two_that_do_not_fit(token_seconds=0.5), turns=turns) as w:
        long = w.ask("a", tokens=100)
        await w.advance(2.0)
        other = w.ask("b", tokens=12)
        await w.advance(3.0)
        assert w.state("a") == (State.ASLEEP, 2)
        long.cancel()
        await w.advance(10.0)
        assert other.done()
        assert (w.calls("a", "wake"), w.calls("b", "suspend")) == (1, 0)
        assert w.fleet.status_of("a").in_flight == 0
        assert (await w.answered("a")).text == "Hello from a: x"


@rule
async def suspended_requests_end_with_an_error_when_their_model_cannot_be_woken() -> None:
    turns = TurnConfig(min_awake=0.0, turn=1.0)
    async with world(two_that_do_not_fit(token_seconds=0.5), turns=turns) as w:
        long = w.ask("a", tokens=100)
        await w.advance(2.0)
        other = w.ask("b", tokens=2)
        w.spec("a").failures["wake"] = [CheckpointError("/secret", reason="a file has changed")]
        await w.advance(20.0)
        assert other.result().text == "He"
        assert isinstance(long.exception(), ModelWakeFailed)
        assert w.fleet.status_of("a").in_flight == 0
        assert w.state("a") == (State.FAILED, 2)


@rule
async def what_is_suspended_keeps_its_kv_while_there_is_room() -> None:
    turns = TurnConfig(min_awake=0.0, turn=1.0)
    for total, kept in ((1000 * MIB, 50 * MIB), (655 * MIB, 0)):
        specs = two_that_do_not_fit(token_seconds=0.5, first_kv=50 * MIB)
        specs["b"].first_kv = 10 * MIB
        async with world(specs, total=total, turns=turns) as w:
            long = w.ask("a", tokens=100)
            await w.advance(2.0)
            other = w.ask("b", tokens=12)
            await w.advance(2.5)
            assert w.state("b") == AWAKE
            assert w.engine("a").footprint().kept == kept
            await w.advance(30.0)
            assert other.done()
            assert long.result().text == "Hello from a: x"


@rule
async def a_sleep_by_hand_waits_for_what_is_suspended() -> None:
    turns = TurnConfig(min_awake=0.0, turn=1.0)
    async with world(two_that_do_not_fit(token_seconds=0.5), turns=turns, shared=False) as w:
        long = w.ask("a", tokens=100)
        await w.advance(2.0)
        other = w.ask("b", tokens=20)
        await w.advance(1.5)
        assert w.state("a") == (State.ASLEEP, 1)
        slept = w.begin(w.fleet.sleep("a", 2))
        await w.advance(1.0)
        assert not slept.done(), "something is in flight"
        await w.advance(40.0)
        assert long.result().text == "Hello from a: x"
        assert other.done()
        assert slept.result() == 2
        assert w.state("a") == (State.ASLEEP, 2)


@rule
async def a_sleep_by_hand_holds_up_no_turn() -> None:
    """What drains by hand is suspended like anything busy, and sleeps when it has ended."""
    turns = TurnConfig(min_awake=0.0, turn=1.0)
    async with world(two_that_do_not_fit(token_seconds=0.5), turns=turns) as w:
        long = w.ask("a", tokens=100)
        await w.advance(2.0)
        slept = w.begin(w.fleet.sleep("a"))
        await w.advance(0.1)
        assert w.state("a")[0] is State.DRAINING
        assert (await w.answered("b", tokens=1, within=6.0)).waited < 4.0
        assert not slept.done()
        newcomer = w.ask("a", tokens=1)
        await w.advance(30.0)
        assert long.result().text == "Hello from a: x"
        assert slept.result() == 1
        assert newcomer.result().text == "H", "it wakes again for who came after"


@rule
async def nothing_is_suspended_for_a_pinned_model_that_would_keep_its_place() -> None:
    turns = TurnConfig(min_awake=0.0, turn=1.0)
    specs = two_that_do_not_fit(token_seconds=0.5)
    async with world(specs, turns=turns, b={"pinned": True, "max_wait": 60.0}) as w:
        long = w.ask("a", tokens=100)
        await w.advance(2.0)
        asked = w.ask("b", tokens=1)
        await w.advance(3.0)
        assert not asked.done()
        assert not w.engine("a").suspended
        await w.advance(30.0)
        assert long.result().text == "Hello from a: x"
        assert asked.result().text == "H"


@rule
async def a_lowered_limit_holds_soon_after_what_was_in_its_way_has_ended() -> None:
    async with world({"a": FakeSpec(token_seconds=0.1), "b": FakeSpec(token_seconds=0.1)}) as w:
        asked = [w.ask(name, tokens=5) for name in "ab"]
        await w.advance(0.2)
        lower = replace(w.config.memory, device_limit=Size(bytes=150 * MIB))
        w.fleet.reconfigure(replace(w.config, memory=lower))
        await w.advance(2.5)
        assert all(task.result() for task in asked)
        assert w.device_bytes() <= 150 * MIB


@rule
async def a_model_just_woken_serves_its_least_time() -> None:
    turns = TurnConfig(min_awake=5.0, turn=10.0)
    async with world(two_that_do_not_fit(), turns=turns) as w:
        await w.answered("a")
        woken_at = w.timers.now()
        other = w.ask("b")
        await w.advance(4.5)
        assert w.state("a") == AWAKE
        await w.advance(2.0)
        assert w.state("a") == (State.ASLEEP, 2)
        assert other.result().at - woken_at >= 5.0


@rule
async def a_pinned_model_is_slept_by_hand_only() -> None:
    turns = TurnConfig(min_awake=0.0, turn=1.0)
    pinned = {"pinned": True, "idle_timeout": 10.0, "deepen_after": 10.0}
    async with world(two_that_do_not_fit(), turns=turns, a=pinned) as w:
        await w.answered("a", keep_alive=0.0)
        await w.advance(30.0)
        refused = w.ask("b")
        await w.advance(30.0)
        assert isinstance(refused.exception(), ModelWakeFailed)
        assert w.state("a") == AWAKE
        assert await w.fleet.sleep(None, 1) == 2
        assert w.state("a") == AWAKE, "sleeping all spares it"
        await w.fleet.sleep("a", 1)
        await w.advance(30.0)
        assert w.state("a") == (State.ASLEEP, 1)


@rule
async def a_pin_by_hand_holds_at_once_and_until_it_is_taken_back() -> None:
    async with world({"a": FakeSpec()}, a={"idle_timeout": 10.0, "deepen_after": 10.0}) as w:
        await w.answered("a")
        await w.advance(5.0)
        w.fleet.pin("a", True)
        await w.advance(100.0)
        assert w.state("a") == AWAKE
        assert w.fleet.status_of("a").pinned
        assert w.fleet.status_of("a").sleeps_in_seconds is None
        await w.fleet.sleep(None, 1)
        assert w.state("a") == AWAKE, "sleeping all spares it"
        w.fleet.pin("a", False)
        await w.advance(0.1)
        assert w.state("a") == (State.ASLEEP, 1), "it had been idle for long"
        w.fleet.pin("a", True)
        await w.advance(100.0)
        assert w.state("a") == (State.ASLEEP, 1), "nor does its sleep deepen"
        w.fleet.pin("a", False)
        await w.advance(0.1)
        assert w.state("a") == (State.ASLEEP, 2)


@rule
async def room_is_not_taken_from_who_was_pinned_by_hand() -> None:
    turns = TurnConfig(min_awake=0.0, turn=1.0)
    async with world(two_that_do_not_fit(), turns=turns) as w:
        await w.answered("a")
        w.fleet.pin("a", True)
        refused = w.ask("b")
        await w.advance(30.0)
        assert isinstance(refused.exception(), ModelWakeFailed)
        assert w.state("a") == AWAKE
        w.fleet.pin("a", False)
        await w.answered("b")
        assert w.state("a") == (State.ASLEEP, 2)


# keep_alive


@rule
async def keep_alive_moves_the_timer_until_the_next_request() -> None:
    async with world({"a": FakeSpec()}, a={"idle_timeout": 10.0}) as w:
        await w.answered("a", keep_alive=100.0)
        await w.advance(90.0)
        assert w.state("a") == AWAKE
        await w.answered("a", keep_alive=math.inf)
        await w.advance(10_000.0)
        assert w.state("a") == AWAKE
        await w.answered("a")
        await w.advance(10.1)
        assert w.state("a")[0] is State.ASLEEP, "a request without it has the model's own timeout"
        await w.answered("a", keep_alive=0.0)
        await w.advance()
        assert w.state("a")[0] is State.ASLEEP
        await w.answered("a")
        await w.answered("a", keep_alive=1.0)
        await w.advance(1.5)
        assert w.state("a")[0] is State.ASLEEP, "a nearer deadline moves a timer that is armed"


@rule
async def keep_alive_protects_from_nothing_else() -> None:
    async with world(two_that_do_not_fit()) as w:
        await w.answered("a", keep_alive=math.inf)
        await w.answered("b", within=3.0)
        assert w.state("a") == (State.ASLEEP, 2)


# Looking


@rule
async def looking_never_wakes_and_never_touches_a_timer() -> None:
    async with world({"a": FakeSpec(), "b": FakeSpec()}, a={"idle_timeout": 10.0}) as w:

        async def look() -> None:
            for name in ("a", "b"):
                engine = await w.fleet.opened(name)
                engine.decode(engine.encode("text"))
                w.fleet.status_of(name)
                w.fleet.resolve(name)
                w.fleet.is_sleeping(name)
            w.fleet.status()
            w.fleet.memory()
            w.fleet.fault()
            w.fleet.is_sleeping(None)
            await w.advance(0.5)

        answer = await w.answered("a")
        while w.timers.now() < answer.at + 9.0:
            await look()
        assert w.state("a") == AWAKE
        await w.advance(answer.at + 10.1 - w.timers.now())
        assert w.state("a") == (State.ASLEEP, 1)
        for _ in range(20):
            await look()
        assert w.state("a") == (State.ASLEEP, 1)
        assert w.state("b") == (State.COLD, None)
        assert w.engine("b").calls == []


# Waiting


@rule
async def the_queue_is_bounded() -> None:
    async with world({"a": FakeSpec(wake_seconds=5.0, token_seconds=1.0)}, a={"max_waiting": 4}) as w:
        asked = [w.ask("a", tokens=2) for _ in range(4)]
        await w.advance(1.0)
        refused = w.ask("a")
        await w.advance()
        error = refused.exception()
        assert isinstance(error, QueueFull)
        assert error.retry_after
        await w.advance(4.5)
        status = w.fleet.status_of("a")
        assert (status.state, status.in_flight, status.queued) == (State.AWAKE, 4, 4), "none is in a step yet"
        refused = w.ask("a")
        await w.advance()
        assert isinstance(refused.exception(), QueueFull)
        await w.advance(1.0)
        assert w.fleet.status_of("a").queued == 0
        welcome = w.ask("a")
        await w.advance(60.0)
        assert all(task.result() for task in [*asked, welcome])


@rule
async def nobody_waits_longer_than_max_wait() -> None:
    turns = TurnConfig(min_awake=0.0, turn=10.0)
    async with world(two_that_do_not_fit(token_seconds=1.0), turns=turns, b={"max_wait": 5.0}) as w:
        busy = w.ask("a", tokens=15)
        await w.advance(2.0)
        asked_at = w.timers.now()
        waiting = [w.ask("b")]
        await w.advance(1.0)
        waiting.append(w.ask("b"))
        await w.advance(asked_at + 5.1 - w.timers.now())
        error = waiting[0].exception()
        assert isinstance(error, WaitTimeout)
        assert error.retry_after
        assert not waiting[1].done()
        await w.advance(1.0)
        assert isinstance(waiting[1].exception(), WaitTimeout)
        await w.advance(20.0)
        assert busy.result().text == "Hello from a: x"
        assert w.fleet.status_of("b").in_flight == 0


@rule
async def requests_beyond_the_places_of_an_engine_wait_in_order() -> None:
    async with world({"a": FakeSpec(token_seconds=1.0)}, a={"max_running": 2}) as w:
        asked = [w.ask("a", tokens=2) for _ in range(6)]
        await w.advance(2.1)
        assert [task.done() for task in asked] == [True, True, False, False, False, False]
        assert w.engine("a").running == 2
        await w.advance(2.0)
        assert [task.done() for task in asked] == [True] * 4 + [False] * 2
        await w.advance(2.0)
        answers = [task.result() for task in asked]
        assert [round(answer.queue_seconds) for answer in answers] == [0, 0, 2, 2, 4, 4]


@rule
async def who_has_waited_longest_is_woken_first() -> None:
    turns = TurnConfig(min_awake=0.0, turn=1.0)
    specs = {name: FakeSpec(weights=600 * MIB, token_seconds=0.5) for name in "abcd"}
    async with world(specs, turns=turns) as w:
        asked = {"a": w.ask("a", tokens=4)}
        for name in "cdb":
            await w.advance(0.1)
            asked[name] = w.ask(name, tokens=4)
        await w.advance(60.0)
        assert sorted(asked, key=lambda name: asked[name].result().at) == ["a", "c", "d", "b"]


@rule
async def no_wait_is_longer_than_a_turn_an_answer_and_two_wakes() -> None:
    turns = TurnConfig(min_awake=1.0, turn=2.0)
    specs = two_that_do_not_fit(token_seconds=0.1, sleep_seconds=0.01)
    async with world(specs, turns=turns) as w:
        waits: list[float] = []

        async def client(number: int) -> None:
            for _ in range(20):
                answer = await w.ask("ab"[number % 2], f"{number}", tokens=10)
                waits.append(answer.waited)
                await w.timers.sleep(0.03 * number)

        clients = [asyncio.create_task(client(number)) for number in range(16)]
        for _ in range(300):
            await w.advance(0.5)
            assert w.device_bytes() <= 1000 * MIB
            if all(task.done() for task in clients):
                break
        for task in clients:
            task.result()
        assert len(waits) == 320
        assert max(waits) <= 2.0 + 1.0 + 2 * 1.0 + 0.1


# Leaving and failing


@rule
async def a_client_may_leave_at_any_moment() -> None:
    async with world(two_that_do_not_fit(token_seconds=0.5), total=900 * MIB) as w:
        await w.answered("b", tokens=1)
        busy = w.ask("b", tokens=8)
        for moment in range(40):
            asked = w.ask("a")
            await w.advance(0.25 * moment)
            asked.cancel()
            await w.advance(1.1)
            status = w.fleet.status_of("a")
            assert (status.in_flight, status.queued) == (0, 0), f"after {0.25 * moment} s"
            assert w.engine("a").running == 0
        assert busy.result().text == "Hello fr"
        await w.answered("a")


@rule
async def a_generation_that_fails_does_not_wedge_the_model() -> None:
    async with world({"a": FakeSpec()}, a={"idle_timeout": 10.0}) as w:
        w.spec("a").failures["generate"] = [DeviceError("a step failed")]
        asked = w.ask("a")
        await w.advance(0.1)
        assert isinstance(asked.exception(), DeviceError)
        assert w.fleet.status_of("a").in_flight == 0
        await w.answered("a")
        await w.advance(11.0)
        assert w.state("a") == (State.ASLEEP, 1)


@rule
async def an_abort_cuts_what_is_in_flight() -> None:
    async with world({"a": FakeSpec(token_seconds=1.0), "b": FakeSpec(token_seconds=1.0)}) as w:
        cut = [w.ask("a") for _ in range(3)]
        other = w.ask("b", tokens=4)
        await w.advance(1.5)
        sleeping = w.begin(w.fleet.sleep("a", 2, "abort"))
        await w.advance(0.1)
        assert sleeping.result() == 2
        for task in cut:
            assert isinstance(task.exception(), ModelAsleep)
        await w.advance(5.0)
        assert other.result().text == "Hell"
        assert w.state("a") == (State.ASLEEP, 2)


async def read_one_and_stall(w: World, *, behind: bool = False) -> None:
    """Ask ``a`` for many tokens, take the first, and do nothing for a long time."""
    async with w.fleet.lease("a") as lease:
        request = GenerateRequest(prompt_ids=[65], sampling=SamplingParams(max_tokens=4000))
        async for _ in lease.generate(request):
            lease.set_behind(behind)
            await w.timers.sleep(1000.0)


@rule
async def an_abort_does_not_wait_for_who_does_not_read() -> None:
    async with world({"a": FakeSpec(token_seconds=1.0)}) as w:
        stalled = w.begin(read_one_and_stall(w))
        await w.advance(1.5)
        sleeping = w.begin(w.fleet.sleep("a", 2, "abort"))
        await w.advance(0.1)
        assert sleeping.result() == 2
        assert w.state("a") == (State.ASLEEP, 2)
        await w.advance(1000.0)
        assert isinstance(stalled.exception(), ModelAsleep)


@rule
async def who_is_behind_with_reading_takes_no_place() -> None:
    async with world({"a": FakeSpec(token_seconds=0.1)}, a={"max_running": 2}) as w:
        stalled = [w.begin(read_one_and_stall(w, behind=True)) for _ in range(5)]
        await w.advance(2.0)
        assert w.fleet.status_of("a").queued == 0, "all have had their first token"
        assert (await w.answered("a", tokens=3)).queue_seconds < 1.0
        for task in stalled:
            task.cancel()
        await w.advance(1.0)
        slow = [w.begin(read_one_and_stall(w)) for _ in range(2)]
        await w.advance(2.0)
        waiting = w.ask("a", tokens=3)
        await w.advance(10.0)
        assert not waiting.done(), "two who only take their time have places"
        for task in slow:
            task.cancel()


@rule
async def draining_the_server_finishes_what_is_in_flight_and_refuses_the_rest() -> None:
    turns = TurnConfig(min_awake=0.0, turn=100.0)
    async with world(two_that_do_not_fit(token_seconds=1.0), turns=turns) as w:
        running = w.ask("a", tokens=10)
        await w.advance(2.0)
        queued = w.ask("b")
        await w.advance(1.0)
        assert w.fleet.ready
        draining = w.begin(w.fleet.drain())
        await w.advance()
        assert not w.fleet.ready
        assert isinstance(queued.exception(), ShuttingDown)
        newcomer = w.ask("a")
        await w.advance(1.0)
        assert isinstance(newcomer.exception(), ShuttingDown)
        with pytest.raises(ShuttingDown):
            await w.fleet.wake("b")
        assert not draining.done()
        await w.advance(10.0)
        assert running.result().text == "Hello from"
        assert draining.done()


# By hand


@rule
async def a_half_woken_model_is_completed_by_what_is_missing() -> None:
    async with world({"a": FakeSpec(wake_seconds=1.0)}, a={"idle_timeout": 60.0}) as w:
        await w.answered("a")
        for complete in (frozenset({"kv_cache"}), frozenset({"weights", "kv_cache"}), None):
            assert await w.fleet.sleep("a", 2) == 2
            half = w.begin(w.fleet.wake("a", frozenset({"weights"})))
            await w.advance(1.5)
            assert half.result() is False
            assert w.state("a") == (State.ASLEEP, 2)
            assert w.fleet.is_sleeping("a")
            assert w.engine("a").tags == {"weights"}
            if complete is None:
                await w.answered("a")
            else:
                whole = w.begin(w.fleet.wake("a", complete))
                await w.advance(1.5)
                assert whole.result() is True
            assert w.state("a") == AWAKE
            assert not w.fleet.is_sleeping("a")
        await w.fleet.sleep("a", 2)
        half = w.begin(w.fleet.wake("a", frozenset({"weights"})))
        await w.advance(70.0)
        assert half.done()
        assert w.device_bytes() < 200 * MIB
        assert w.engine("a").tags == frozenset(), "the idle timer takes a half-woken model too"


@rule
async def a_sleep_by_hand_goes_to_the_level_asked_and_never_up() -> None:
    async with world({"a": FakeSpec(sleep_seconds=0.5), "b": FakeSpec()}) as w:
        assert await w.fleet.sleep("a", 1) == 2, "a cold one has nothing to give back"
        await w.answered("a")
        await w.answered("b")
        levels = []
        for level in (1, 1, None, 2, 1, None):
            sleeping = w.begin(w.fleet.sleep("a", level))
            await w.advance(1.0)
            levels.append(sleeping.result())
        assert levels == [1, 1, 1, 2, 2, 2]
        assert not w.fleet.is_sleeping(None)
        both = w.begin(w.fleet.sleep(None, 1))
        await w.advance(1.0)
        assert both.result() == 2
        assert w.state("b") == (State.ASLEEP, 1)
        assert w.fleet.is_sleeping(None)


@rule
async def two_sleeps_by_hand_become_one_at_the_deeper_level() -> None:
    async with world({"a": FakeSpec(token_seconds=1.0)}) as w:
        running = w.ask("a", tokens=5)
        await w.advance(1.0)
        sleeps = [w.begin(w.fleet.sleep("a", level)) for level in (1, 2, 1)]
        await w.advance(10.0)
        assert running.done()
        assert [task.result() for task in sleeps] == [2, 2, 2]
        assert w.calls("a", "sleep") == 1


@rule
async def a_sleep_by_hand_during_a_wake_follows_it() -> None:
    async with world({"a": FakeSpec(wake_seconds=2.0)}) as w:
        asked = w.ask("a")
        await w.advance(1.0)
        sleeping = w.begin(w.fleet.sleep("a", 1))
        await w.advance(2.0)
        assert asked.result().text == "Hello from a: x", "who came before is served"
        assert sleeping.result() == 1
        assert w.state("a") == (State.ASLEEP, 1)


# Levels and room


@rule
async def room_on_a_cpu_is_made_at_level_2() -> None:
    specs = {"a": FakeSpec(weights=600 * MIB), "b": FakeSpec(weights=600 * MIB)}
    async with world(specs, a={"level": 1, "idle_timeout": 5.0}) as w:
        await w.answered("a")
        await w.advance(6.0)
        assert w.state("a") == (State.ASLEEP, 1), "for idleness"
        await w.answered("b")
        assert w.state("a") == (State.ASLEEP, 2), "for room"


@rule
async def parked_weights_stay_within_the_host_limit_and_the_hotter_stays_parked() -> None:
    specs = {name: FakeSpec(weights=200 * MIB) for name in "abc"}
    idle = {"idle_timeout": 10.0}
    async with world(specs, host_limit=450 * MIB, shared=False, a=idle, b=idle, c=idle) as w:
        for name in "abc":
            await w.answered(name)
            await w.advance(1.0)
        await w.advance(15.0)
        assert [w.state(name)[1] for name in "abc"] == [2, 1, 1]
        assert sum(engine.host_copy for engine in w.backend.engines.values()) == 400 * MIB


@rule
async def a_spare_copy_is_room_for_who_falls_asleep() -> None:
    specs = {name: FakeSpec(weights=200 * MIB) for name in "ab"}
    async with world(specs, host_limit=250 * MIB, shared=False, b={"idle_timeout": 10.0}) as w:
        for name in "ab":
            await w.answered(name)
        assert [w.engine(name).host_copy // MIB for name in "ab"] == [200, 0]
        await w.advance(15.0)
        assert (w.state("a"), w.state("b")) == (AWAKE, (State.ASLEEP, 1))
        assert [w.engine(name).host_copy // MIB for name in "ab"] == [0, 200]
        assert w.calls("a", "trim_copy") == 0, "it was seen to have gone"
        await w.fleet.sleep("a", 1)
        assert (w.state("a"), w.state("b")) == ((State.ASLEEP, 2), (State.ASLEEP, 1)), "no room is left"


@rule
async def a_light_sleep_that_kept_no_weights_is_told_as_a_deep_one() -> None:
    async with world({"a": FakeSpec(wake_seconds=1.0)}, shared=False) as w:
        await w.answered("a")
        await w.engine("a").trim_copy()
        w.backend.host_limit = 0
        assert await w.fleet.sleep("a", 1) == 2
        assert w.state("a") == (State.ASLEEP, 2)


@rule
async def ram_that_others_take_costs_spare_copies_first() -> None:
    specs = {name: FakeSpec(weights=200 * MIB) for name in ("asleep", "awake")}
    async with world(specs, host_total=1000 * MIB, shared=False) as w:
        for name in specs:
            await w.answered(name)
        await w.fleet.sleep("asleep", 1)
        asked = w.ask("awake", "long" * 20)
        w.backend.foreign_host = 700 * MIB
        await w.advance(2.0)
        assert [w.state(name) for name in specs] == [(State.ASLEEP, 1), AWAKE]
        assert [w.engine(name).host_copy // MIB for name in specs] == [200, 0]
        w.backend.foreign_host = 900 * MIB
        await w.advance(2.0)
        assert [w.state(name) for name in specs] == [(State.ASLEEP, 2), AWAKE]
        await w.advance(100.0)
        assert "long" in asked.result().text


@rule
async def kv_that_nobody_uses_goes_before_any_model_sleeps() -> None:
    async with world({"a": FakeSpec(weights=300 * MIB), "b": FakeSpec(weights=600 * MIB)}) as w:
        await w.answered("a")
        w.engine("a").kv = 150 * MIB
        await w.answered("b")
        assert w.state("a") == AWAKE
        assert w.calls("a", "trim_kv") == 1
        assert w.engine("a").kv == 0


@rule
async def parked_sleepers_make_room_before_idle_models_do() -> None:
    specs = {name: FakeSpec(weights=300 * MIB) for name in "abcd"}
    async with world(specs) as w:
        for name in "abc":
            await w.answered(name)
        await w.fleet.sleep("c", 1)
        await w.answered("d")
        assert [w.state(name) for name in "abcd"] == [AWAKE, AWAKE, (State.ASLEEP, 2), AWAKE]


@rule
async def the_least_useful_idle_model_makes_room() -> None:
    specs = {name: FakeSpec(weights=300 * MIB) for name in "abcd"}
    async with world(specs) as w:
        for name in "bca":
            await w.answered(name)
            await w.advance(10.0)
        await w.answered("d")
        assert [w.state(name) for name in "abcd"] == [AWAKE, (State.ASLEEP, 2), AWAKE, AWAKE]


@rule
async def memory_that_others_take_costs_the_coldest_sleepers_first() -> None:
    specs = {name: FakeSpec(weights=200 * MIB) for name in ("cold", "warm", "awake")}
    async with world(specs) as w:
        for name in specs:
            await w.answered(name)
            await w.advance(10.0)
        await w.fleet.sleep("cold", 1)
        await w.fleet.sleep("warm", 1)
        w.backend.foreign = 450 * MIB
        await w.advance(2.0)
        assert [w.state(name) for name in specs] == [(State.ASLEEP, 2), (State.ASLEEP, 1), AWAKE]
        w.backend.foreign = 650 * MIB
        await w.advance(2.0)
        assert [w.state(name) for name in specs] == [(State.ASLEEP, 2), (State.ASLEEP, 2), AWAKE]
        w.backend.foreign = 900 * MIB
        await w.advance(2.0)
        assert w.state("awake") == (State.ASLEEP, 2)
        w.backend.foreign = 0
        for name in specs:
            await w.answered(name)
