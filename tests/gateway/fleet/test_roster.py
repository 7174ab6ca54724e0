"""What a request costs does not grow with the models that are merely there."""

from __future__ import annotations

import math

import pytest

from engine import Footprint, Level
from gateway.errors import ModelNotFound
from gateway.fleet import State
from gateway.fleet.served_model import ServedModel
from tests.fake_engine import MIB, FakeSpec
from tests.gateway.fleet.world import World, world


def fleet_of(models: int) -> dict[str, FakeSpec]:
    return {f"m{number}": FakeSpec() for number in range(models)}


async def looks(models: int, level: Level, monkeypatch: pytest.MonkeyPatch) -> int:
    """How often any model's memory is looked at while one is woken, used twice and put to sleep."""
    count = 0
    real = ServedModel.footprint

    def footprint(self: ServedModel) -> Footprint:
        nonlocal count
        count += 1
        return real(self)

    config = {"level": level, "idle_timeout": 10.0, "deepen_after": math.inf}
    async with world(fleet_of(models), total=10_000 * MIB, **dict.fromkeys(fleet_of(models), config)) as w:
        for name in fleet_of(models):
            await w.answered(name)
            await w.advance(11)  # asleep again: it has been loaded, and keeps its residue
        assert w.device_bytes() == models * (MIB if level == 2 else 101 * MIB)
        with monkeypatch.context() as counting:
            counting.setattr(ServedModel, "footprint", footprint)
            for _ in range(2):
                await w.answered("m1")
            await w.advance(11)
    return count


@pytest.mark.parametrize("level", [1, 2])
async def test_quiet_models_are_not_looked_at(level: Level, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await looks(3, level, monkeypatch) == await looks(60, level, monkeypatch)


async def test_kv_that_a_quiet_model_gave_back_by_itself_costs_nobody_anything() -> None:
    """Plans go on seeing it with that KV, as room that is to be had."""
    specs = {"a": FakeSpec(), "b": FakeSpec(), "c": FakeSpec(weights=700 * MIB)}
    async with world(specs) as w:
        await w.answered("a")
        await w.answered("b")
        w.engine("a").kv += 300 * MIB
        await w.advance(2)
        await w.answered("a")
        await w.advance(2)  # seen with it, and quiet
        w.engine("a").kv -= 300 * MIB
        await w.answered("c")
        assert [w.state(name)[0] for name in specs] == [State.AWAKE] * 3


async def test_what_models_at_rest_keep_is_counted() -> None:
    """Residues of 20 MiB each leave no room for the last one's weights and first KV."""
    specs = {f"m{number}": FakeSpec(residue=20 * MIB) for number in range(5)}
    async with world(specs, total=200 * MIB, **{name: {"level": 2} for name in specs}) as w:
        for name in ("m0", "m1", "m2", "m3"):
            await w.answered(name)
        status = await _refused(w, "m4")
        assert status.startswith("m4 could not be woken: not enough memory")
        await w.answered("m3")


async def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    async with world(fleet_of(2), m0={"aliases": ("other",)}) as w:
        assert w.fleet.resolve("other").name == "m0"
        with pytest.raises(ModelNotFound, match="The model `m2` does not exist; there is: m0, m1"):
            w.fleet.resolve("m2")
        with pytest.raises(ModelNotFound, match=r"exist \(did you mean `other`\?\); there is"):
            w.fleet.resolve("othr")


async def _refused(w: World, name: str) -> str:
    asked = w.ask(name)
    await w.advance(1)
    return str(asked.exception())
