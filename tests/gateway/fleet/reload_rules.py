"""The rules of a new configuration for a running fleet, each as a check that fails when it is broken."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from engine import CheckpointError
from gateway.config import MemoryConfig, ModelConfig, Size, TurnConfig
from gateway.errors import ModelNotFound, ModelReplaced, ModelWakeFailed
from gateway.fleet import State
from gateway.fleet.reconfigure import Changes
from tests.fake_engine import MIB, FakeSpec
from tests.gateway.fleet.rules import AWAKE, rule
from tests.gateway.fleet.world import World, world


def reload(w: World, *models: ModelConfig, **sections: Any) -> Changes:
    """As the file is read again with these models."""
    return w.fleet.reconfigure(replace(w.fleet.config, models=models, **sections))


def model(w: World, name: str, **changes: Any) -> ModelConfig:
    """As it is configured now, with changes."""
    return replace(w.fleet.resolve(name), **changes)


@rule
async def models_that_a_reload_leaves_as_they_are_notice_nothing() -> None:
    specs = {"a": FakeSpec(token_seconds=1.0), "b": FakeSpec(), "c": FakeSpec()}
    async with world(specs, b={"idle_timeout": 20.0, "level": 1}) as w:
        await w.answered("b")
        await w.fleet.sleep("b", 1)
        streaming = w.ask("a", tokens=5)
        await w.advance(2.0)
        before = w.fleet.status_of("a"), w.fleet.status_of("b")
        assert reload(w, model(w, "a"), model(w, "b")) == Changes(removed=("c",))
        assert (w.fleet.status_of("a"), w.fleet.status_of("b")) == before
        await w.advance(10.0)
        assert streaming.result().text == "Hello"
        assert w.state("b") == (State.ASLEEP, 1)
        await w.answered("a")
        assert w.calls("a", "wake") == w.calls("b", "wake") == 1


@rule
async def a_removed_model_finishes_what_is_in_flight_and_closes() -> None:
    async with world({"a": FakeSpec(token_seconds=1.0), "b": FakeSpec()}) as w:
        streaming = w.ask("a", tokens=5)
        await w.advance(2.0)
        reload(w, model(w, "b"))
        newcomer = w.ask("a")
        await w.advance()
        assert isinstance(newcomer.exception(), ModelNotFound)
        assert [status.name for status in w.fleet.status()] == ["b"]
        assert w.fleet.memory()["device"]["used"] == 111 * MIB, "what it holds is still counted"
        await w.advance(10.0)
        assert streaming.result().text == "Hello"
        assert w.engine("a").closed
        assert w.fleet.memory()["device"]["used"] == 0
        await w.answered("b")


@rule
async def who_waits_for_a_removed_model_is_told_that_it_is_not_there() -> None:
    async with world({"a": FakeSpec(wake_seconds=1.0), "b": FakeSpec()}) as w:
        waiting = w.ask("a")
        await w.advance(0.5)
        reload(w, model(w, "b"))
        await w.advance()
        error = waiting.exception()
        assert isinstance(error, ModelNotFound)
        assert "there is: b" in error.message
        assert not w.engine("a").closed, "a wake that has begun is finished first"
        await w.advance(1.0)
        assert w.engine("a").closed


@rule
async def settings_that_need_no_other_engine_hold_at_once() -> None:
    configs = {"idle_timeout": 100.0, "deepen_after": 100.0, "level": 1, "pinned": False}
    async with world({"a": FakeSpec()}, a=configs | {"aliases": ("old",)}) as w:
        await w.answered("a")
        await w.advance(5.0)
        changed = {"aliases": ("new",), "idle_timeout": 10.0, "max_waiting": 1, "sampling": {"top_k": 3}}
        assert reload(w, model(w, "a", **changed)) == Changes(changed=("a",))
        assert w.fleet.resolve("new").sampling == {"top_k": 3}
        with pytest.raises(ModelNotFound):
            w.fleet.resolve("old")
        await w.advance(4.7)
        assert w.state("a") == AWAKE
        await w.advance(0.4)
        assert w.state("a") == (State.ASLEEP, 1)
        reload(w, model(w, "a", deepen_after=20.0))
        await w.advance(20.0)
        assert w.state("a") == (State.ASLEEP, 2)
        await w.answered("a")
        reload(w, model(w, "a", idle_timeout=0.5, pinned=True))
        await w.advance(100.0)
        assert w.state("a") == AWAKE
        reload(w, model(w, "a", pinned=False))
        await w.advance(0.1)
        assert w.state("a") == (State.ASLEEP, 1), "it had been idle for long"
        assert w.calls("a", "wake") == 2


@rule
async def a_pin_by_hand_outlives_a_reload_that_says_the_same_as_before() -> None:
    async with world({"a": FakeSpec()}, a={"idle_timeout": 10.0}) as w:
        await w.answered("a")
        w.fleet.pin("a", True)
        reload(w, model(w, "a", idle_timeout=5.0))
        await w.advance(100.0)
        assert w.state("a") == AWAKE
        reload(w, model(w, "a", pinned=True))
        reload(w, model(w, "a", pinned=False))
        await w.advance(0.1)
        assert w.state("a") == (State.ASLEEP, 1)


@rule
async def a_replaced_model_serves_newcomers_while_the_old_one_finishes() -> None:
    specs = {"a": FakeSpec(token_seconds=1.0), "other": FakeSpec()}
    async with world(specs, open_first=False, a={"aliases": ("x",)}) as w:
        streaming = w.ask("a", tokens=5)
        await w.fleet.opened("a")
        await w.advance(2.0)
        assert reload(w, model(w, "a", path="other")) == Changes(replaced=("a",), removed=("other",))
        newcomer = w.ask("x")
        await w.fleet.opened("a")
        await w.advance(1.0)
        assert newcomer.result().text == "Hello from other: x"
        assert not w.engine("a").closed
        await w.advance(10.0)
        assert streaming.result().text == "Hello"
        assert w.engine("a").closed
        assert w.state("a") == AWAKE
        assert w.fleet.memory()["device"]["used"] == 111 * MIB


@rule
async def a_request_prepared_for_the_old_engine_never_runs_on_the_new_one() -> None:
    async with world({"a": FakeSpec(wake_seconds=1.0), "other": FakeSpec()}) as w:
        prepared_for = await w.fleet.opened("a")
        waiting = w.ask("a")
        await w.advance(0.5)
        reload(w, model(w, "a", path="other"))
        await w.advance()
        assert isinstance(waiting.exception(), ModelReplaced)

        async def use() -> None:
            async with w.fleet.lease("a", engine=prepared_for):
                pass

        late = w.begin(use())
        await w.advance(2.0)
        assert isinstance(late.exception(), ModelReplaced)


@rule
async def memory_of_a_model_that_leaves_is_not_given_away_twice() -> None:
    big = {name: FakeSpec(weights=600 * MIB, token_seconds=1.0) for name in ("a", "b")}
    async with world(big, turns=TurnConfig(min_awake=0.0, turn=100.0)) as w:
        streaming = w.ask("a", tokens=8)
        await w.advance(2.0)
        reload(w, model(w, "b"))
        waiting = w.ask("b", tokens=1)
        await w.advance(3.0)
        assert not streaming.done()
        assert not waiting.done()
        assert w.device_bytes() < 1000 * MIB
        await w.advance(10.0)
        assert streaming.result().text == "Hello fr"
        assert waiting.result().text == "H"


@rule
async def a_suspended_model_that_leaves_comes_back_to_finish() -> None:
    big = {name: FakeSpec(weights=600 * MIB, token_seconds=1.0) for name in ("a", "b")}
    async with world(big, turns=TurnConfig(min_awake=0.0, turn=2.0)) as w:
        streaming = w.ask("a", tokens=10)
        await w.advance(1.5)
        other = w.ask("b", tokens=8)
        await w.advance(4.0)
        assert w.state("b") == AWAKE, "a is suspended"
        reload(w, model(w, "b"))
        await w.advance(60.0)
        assert other.result().text == "Hello fr"
        assert streaming.result().text == "Hello from"
        assert w.engine("a").closed


@rule
async def a_failed_model_tries_again_with_its_files_as_they_are_now() -> None:
    async with world({"a": FakeSpec(), "b": FakeSpec()}, b={"idle_timeout": 1.0}) as w:
        await w.answered("b")
        await w.advance(2.0)
        for name in ("a", "b"):
            w.spec(name).failures["wake"] = [CheckpointError("/a", reason="a file has changed")]
            asked = w.ask(name)
            await w.advance(0.1)
            assert isinstance(asked.exception(), ModelWakeFailed)
        reload(w, model(w, "a"), model(w, "b"))
        await w.advance()
        assert (w.state("a"), w.state("b")) == ((State.COLD, None), (State.ASLEEP, 1))
        assert w.fleet.status_of("a").last_error is None
        assert (w.calls("a", "reload_weights"), w.calls("b", "reload_weights")) == (1, 1)
        assert (await w.answered("a")).waited < 1.0
        assert (await w.answered("b")).waited < 1.0


@rule
async def limits_and_turns_hold_at_once() -> None:
    async with world({"a": FakeSpec(), "b": FakeSpec()}, turns=TurnConfig(min_awake=100.0)) as w:
        await w.answered("a")
        await w.answered("b")
        models = model(w, "a"), model(w, "b")
        lower = MemoryConfig(device_limit=Size(bytes=200 * MIB), host_limit=Size(bytes=90 * MIB))
        reload(w, *models, memory=lower)
        assert (w.backend.limits, w.backend.host_limits) == ({"auto": 200 * MIB}, {"auto": 90 * MIB})
        await w.advance(0.5)
        assert w.device_bytes() <= 200 * MIB
        assert (w.state("a"), w.state("b")) == ((State.ASLEEP, 2), AWAKE)
        waiting = w.ask("a")
        await w.advance(1.0)
        assert not waiting.done()
        reload(w, *models, turns=TurnConfig(min_awake=0.0, turn=0.0))
        await w.advance(0.5)
        assert waiting.result().text.startswith("Hello")
