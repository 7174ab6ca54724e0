"""Durations and sizes as people write them. Each parser raises ValueError with the mend in the message."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Final

from gateway.config import NEVER, Size

_SECONDS: Final = {"": 1, "ms": 0.001, "s": 1, "m": 60, "h": 3600}
_BYTES: Final = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_NUMBER_AND_UNIT: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+|%|)", re.ASCII)

DURATION_HELP: Final = 'a duration like "250ms", "90s", "5m", "1h", a number of seconds, or "never"'
BYTES_HELP: Final = 'a size like "512MiB" or "8GiB"'
SIZE_HELP: Final = 'a size like "512MiB", "8GiB" or "80%"'


def parse_duration(value: object) -> float:
    """Seconds, ``NEVER`` for ``"never"``."""
    if value == "never":
        return NEVER
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf:
        return float(value)
    if isinstance(value, str) and (parts := _NUMBER_AND_UNIT.fullmatch(value)) and parts[2] in _SECONDS:
        return float(parts[1]) * _SECONDS[parts[2]]
    raise ValueError(f"expected {DURATION_HELP}, got {value!r}")


def parse_bytes(value: object) -> int:
    if isinstance(value, str) and (parts := _NUMBER_AND_UNIT.fullmatch(value)) and parts[2] in _BYTES:
        return int(float(parts[1]) * _BYTES[parts[2]])
    raise ValueError(f"expected {BYTES_HELP}, got {value!r}")


def parse_size(value: object) -> Size:
    """A number of bytes, or a share when it ends in ``%``."""
    if isinstance(value, str) and (parts := _NUMBER_AND_UNIT.fullmatch(value)):
        if parts[2] == "%" and 0 < float(parts[1]) <= 100:
            return Size(share=float(parts[1]) / 100)
        if parts[2] in _BYTES:
            return Size(bytes=parse_bytes(value))
    raise ValueError(f"expected {SIZE_HELP}, got {value!r}")


def format_bytes(count: int, digits: int = 1, rounded: Callable[[float], int] = round) -> str:
    """For people: ``3.9 MiB``."""
    size, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1000 or unit == "TiB":
            break
        size /= 1024
    return f"{size:.0f} B" if unit == "B" else f"{rounded(size * 10**digits) / 10**digits:.{digits}f} {unit}"


def format_shortage(needed: int, available: int) -> tuple[str, str]:
    """Both for people, with as many digits as it takes to see that more is needed than there is. What is
    needed is rounded up: so much would be enough."""
    digits = 1
    while True:
        told = format_bytes(needed, digits, math.ceil), format_bytes(available, digits)
        if told[0] != told[1]:
            return told
        digits += 1


def format_seconds(seconds: float) -> str:
    """For people: ``0.25s``, ``42s``, ``5m 3s``, ``2h 4m``."""
    if seconds < 10:
        return f"{seconds:.2g}s"
    if seconds < 60:
        return f"{seconds:.0f}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m {rest}s" if minutes < 60 else f"{minutes // 60}h {minutes % 60}m"
