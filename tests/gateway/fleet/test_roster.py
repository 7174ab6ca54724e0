"""What a request costs does not grow with the models that are merely there."""

from __future__ import annotations

import pytest

from engine import Footprint
from gateway.errors import ModelNotFound
from gateway.fleet.served_model import ServedModel
from tests.fake_engine import MIB, FakeSpec
from tests.gateway.fleet.world import World, world


def fleet_of(models: int) -> dict[str, FakeSpec]:
    return {f"m{number}": FakeSpec() for number in range(models)}


async def looks(models: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """How often any model's memory is looked at while one is woken, used twice and put to sleep."""
    count = 0
    real = ServedModel.footprint

    def footprint(self: ServedModel) -> Footprint:
        nonlocal count
        count += 1
        return real(self)

    levels = {name: {"level": 2, "idle_timeout": 10.0} for name in fleet_of(models)}
    async with world(fleet_of(models), **levels) as w:
        for name in fleet_of(models):
            await w.answered(name)
            await w.advance(11)  # asleep again: it has been loaded, and keeps its residue
        assert w.device_bytes() == models * MIB
        with monkeypatch.context() as counting:
            counting.setattr(ServedModel, "footprint", footprint)
            for _ in range(2):
                await w.answered("m1")
            await w.advance(11)
    return count


async def test_models_at_rest_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await looks(3, monkeypatch) == await looks(60, monkeypatch)


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
        with pytest.raises(ModelNotFound, match="there is no model 'm2'; there is: m0, m1"):
            w.fleet.resolve("m2")


async def _refused(w: World, name: str) -> str:
    asked = w.ask(name)
    await w.advance(1)
    return str(asked.exception())
