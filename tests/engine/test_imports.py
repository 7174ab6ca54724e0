"""Imports without the garbage collector."""

from __future__ import annotations

import gc

import pytest

from engine.imports import quick_imports


def test_nothing_is_collected_in_it_and_all_is_as_before_after_it() -> None:
    with pytest.raises(ImportError), quick_imports():
        assert not gc.isenabled()
        raise ImportError
    assert gc.isenabled()


def test_two_at_a_time_leave_it_on() -> None:
    one, other = quick_imports(), quick_imports()
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    other.__exit__(None, None, None)
    assert gc.isenabled()


def test_who_has_turned_it_off_keeps_it_so() -> None:
    gc.disable()
    try:
        with quick_imports():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
