"""The sizes in which memory is taken. No torch in here: an estimate needs none."""

from __future__ import annotations

from typing import Final

PAGE: Final = 4096
HUGE_PAGE: Final = 2 * 2**20
"""What large pieces are taken in, weights among them."""


def round_up(size: int, granularity: int) -> int:
    return -(-size // granularity) * granularity
