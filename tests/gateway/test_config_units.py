from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import NEVER, Size
from gateway.units import (
    format_bytes,
    format_seconds,
    format_shortage,
    parse_bytes,
    parse_duration,
    parse_size,
)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("250ms", 0.25),
        ("90s", 90),
        ("5m", 300),
        ("1h", 3600),
        ("1.5h", 5400),
        ("90", 90),
        (90, 90),
        (0.5, 0.5),
        (0, 0),
        ("never", NEVER),
    ],
)
def test_durations(written: object, seconds: float) -> None:
    assert parse_duration(written) == seconds


@pytest.mark.parametrize(
    "written", ["", "5 minutes", "-5s", -5, True, None, math.nan, math.inf, "1e3", "5M", "h", [5]]
)
def test_what_is_no_duration_is_told_how_to_write_one(written: object) -> None:
    with pytest.raises(ValueError, match='"5m"'):
        parse_duration(written)


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("512MiB", Size(bytes=512 * 2**20)),
        ("8GiB", Size(bytes=8 * 2**30)),
        ("1.5 GB", Size(bytes=1_500_000_000)),
        ("80%", Size(share=0.8)),
        ("100%", Size(share=1.0)),
    ],
)
def test_sizes(written: str, size: Size) -> None:
    assert parse_size(written) == size


@pytest.mark.parametrize("written", ["", "8", "8 gib", "0%", "101%", "-1GiB", 0.8, True, None])
def test_what_is_no_size_is_told_how_to_write_one(written: object) -> None:
    with pytest.raises(ValueError, match='"8GiB"'):
        parse_size(written)


def test_an_absolute_size_takes_no_percentage() -> None:
    assert parse_bytes("32MiB") == 32 * 2**20
    with pytest.raises(ValueError, match="512MiB"):
        parse_bytes("80%")


@given(st.integers(0, 10**9))
def test_whole_numbers_of_any_unit_are_exact(number: int) -> None:
    assert parse_duration(f"{number}s") == number
    assert parse_bytes(f"{number}KiB") == number * 1024


def test_sizes_and_durations_for_people() -> None:
    assert [format_bytes(n) for n in (0, 999, 4 * 2**20, 2**40)] == ["0 B", "999 B", "4.0 MiB", "1.0 TiB"]


def test_what_is_needed_is_told_as_more_than_what_there_is() -> None:
    assert format_shortage(5 * 2**20 + 1, 5 * 2**20) == ("5.1 MiB", "5.0 MiB")
    assert format_shortage(5 * 2**20, 5 * 2**20 - 1) == ("5.000000 MiB", "4.999999 MiB")
    assert format_shortage(2 * 2**30, parse_bytes("1.7GiB")) == ("2.0 GiB", "1.7 GiB")
    assert format_shortage(1, 0) == ("1 B", "0 B")


@given(st.integers(0, 2**44), st.integers(1, 2**44))
def test_as_much_as_is_told_to_be_needed_is_enough(available: int, more: int) -> None:
    needed, there = format_shortage(available + more, available)
    assert needed != there
    assert parse_bytes(needed) >= available + more
    assert [format_seconds(s) for s in (0.25, 42.4, 303, 7440)] == ["0.25s", "42s", "5m 3s", "2h 4m"]
