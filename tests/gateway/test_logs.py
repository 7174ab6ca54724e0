"""A line of the log, for people and for programs."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest

from gateway.fleet.events import Events, Transition
from gateway.fleet.state import State
from gateway.logs import JsonFormatter, TextFormatter


def record(fields: dict[str, Any] | None = None, **options: Any) -> logging.LogRecord:
    made = logging.LogRecord("dormouse.requests", logging.INFO, "f.py", 1, "POST %s", ("/x",), **options)
    if fields is not None:
        made.fields = fields
    return made


def test_fields_follow_the_message() -> None:
    line = TextFormatter().format(record({"model": "a", "seconds": 1.23456}, exc_info=None))
    assert line.endswith("INFO POST /x model=a seconds=1.235")
    assert TextFormatter().format(record(exc_info=None)).endswith("INFO POST /x")


def test_what_is_not_one_word_is_quoted() -> None:
    fields = {"asked_for": 'a "b" status=200', "path": "/räuber"}
    line = TextFormatter().format(record(fields, exc_info=None))
    assert line.endswith(r'POST /x asked_for="a \"b\" status=200" path=/räuber')


def test_fields_are_keys() -> None:
    line = json.loads(JsonFormatter().format(record({"model": "a", "seconds": 1.5}, exc_info=None)))
    assert line.pop("time") > 0
    assert line == {
        "level": "info",
        "logger": "dormouse.requests",
        "message": "POST /x",
        "model": "a",
        "seconds": 1.5,
    }


def test_a_transition_is_a_sentence_for_people_and_keys_for_programs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "dormouse.fleet")
    transition = Transition(
        model="a",
        before=State.AWAKE,
        after=State.ASLEEP,
        level=1,
        cause="idle",
        seconds=0.5,
        bytes=2**20,
        at=7.0,
    )
    Events().record(transition)
    (made,) = caplog.records
    assert TextFormatter().format(made).endswith("INFO a: awake -> asleep level 1 (idle, 0.500 s, 1.0 MiB)")
    line = json.loads(JsonFormatter().format(made))
    del line["time"]
    assert line == {
        "level": "info",
        "logger": "dormouse.fleet",
        "message": "a: awake -> asleep level 1 (idle, 0.500 s, 1.0 MiB)",
        "event": "transition",
        "model": "a",
        "before": "awake",
        "after": "asleep",
        "sleep_level": 1,
        "cause": "idle",
        "seconds": 0.5,
        "bytes": 2**20,
    }


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_a_trace_is_told_of(formatter: logging.Formatter) -> None:
    try:
        raise ValueError("why\nnot")
    except ValueError:
        line = formatter.format(record(exc_info=sys.exc_info()))
    assert "ValueError: why" in line
    if isinstance(formatter, JsonFormatter):
        assert "\n" not in line
