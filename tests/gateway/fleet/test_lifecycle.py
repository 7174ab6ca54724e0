"""The lifecycle's rules hold for the fleet as it is."""

from __future__ import annotations

import pytest

from tests.gateway.fleet import adoption_rules, reload_rules  # noqa: F401 add their rules
from tests.gateway.fleet.rules import RULES


@pytest.mark.parametrize("name", RULES)
async def test_rule(name: str) -> None:
    await RULES[name]()
