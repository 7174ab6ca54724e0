"""The lifecycle's checks are able to fail: each planted fault is caught by the check of its rule."""

from __future__ import annotations

import asyncio

import pytest

from gateway.errors import ApiError
from tests.gateway.fleet.rules import RULES
from tests.mutants import adoption_faults, reload_faults  # noqa: F401 add their faults
from tests.mutants.fleet_faults import FAULTS


def test_every_rule_has_its_fault() -> None:
    assert FAULTS.keys() == RULES.keys()


@pytest.mark.parametrize("rule", FAULTS)
async def test_fault_is_caught(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    FAULTS[rule](monkeypatch)
    with pytest.raises((AssertionError, ApiError, asyncio.InvalidStateError, TimeoutError)):
        await asyncio.wait_for(RULES[rule](), timeout=5.0)
