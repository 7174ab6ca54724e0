"""The table of `dormouse ps`, and what is shown of a model that is waited for."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console, RenderableType

from gateway.commands.status_table import COLUMNS, StatusTable, plain
from gateway.commands.waiting import Bar, Lines

GIB = 2**30


def model(name: str, state: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "state": state,
        "level": None,
        "state_seconds": 12.0,
        "in_flight": 1,
        "queued": 0,
        "waiting_for": None,
        "device_bytes": 5 * GIB,
        "host_bytes": 0,
        "sleeps_in_seconds": None,
        "progress": None,
        "last_error": None,
        **more,
    }


STATUS: dict[str, Any] = {
    "models": [
        model("a-model-with-a-rather-long-name", "asleep", level=1, last_error="over and done with"),
        model("b", "waking", progress={"phase": "weights", "done": GIB, "total": 4 * GIB}),
        model("c", "failed", last_error="the model's files are gone"),
    ],
    "device": {"used": GIB, "limit": 20 * GIB},
    "host": {"used": 0, "limit": 8 * GIB},
}


def drawn(what: RenderableType, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    with console.capture() as capture:
        console.print(what)
    return [line.rstrip() for line in capture.get().splitlines()]


def test_what_is_under_way_and_what_failed_stands_beneath_the_model() -> None:
    header, a, b, loading, c, why, _, memory = drawn(StatusTable(Console()).render(STATUS), 120)
    assert header.split("  ")[0] == "MODEL"
    assert "asleep (1)  12s" in a and "waking      12s" in b and "failed" in c
    assert loading.startswith("  loading ━") and loading.endswith("1.0 GiB of 4.0 GiB")
    assert why == "  the model's files are gone"
    assert memory == "device 1.0 GiB of 20.0 GiB, parked in RAM 0 B of 8.0 GiB"


@pytest.mark.parametrize(
    ("width", "first", "columns"),
    [
        (120, "a-model-with-a-rather-long-name", COLUMNS),
        (90, "a-model-with-a-rather-lon…", COLUMNS),
        (80, "a-model-with-a-…", COLUMNS),
        (72, "a-model-with-a-rather-…", [name for name in COLUMNS if name not in ("DEVICE", "HOST")]),
        (60, "a-model-with-a-ra…", ["MODEL", "STATE", "IN FLIGHT", "QUEUED", "SLEEPS IN"]),
        (40, "a-model-with-a-r…", ["MODEL", "STATE", "SLEEPS IN"]),
        (30, "a-model-with-a-ra…", ["MODEL", "STATE"]),
        (20, "a-model…", ["MODEL", "STATE"]),
    ],
)
def test_a_narrow_terminal_shortens_names_then_does_without_columns(
    width: int, first: str, columns: Sequence[str]
) -> None:
    header, a, b, *_ = drawn(StatusTable(Console(width=width)).render(STATUS), width)
    assert re.split(r" {2,}", header) == list(columns)
    assert a.startswith(f"{first}  asleep (1)")
    assert a.index("asleep") == b.index("waking") == header.index("STATE")
    assert len(a) <= width


def test_where_names_are_short_nothing_is_done_without() -> None:
    header, *_ = drawn(StatusTable(Console(width=80)).render({**STATUS, "models": STATUS["models"][1:]}), 80)
    assert re.split(r" {2,}", header) == list(COLUMNS)


@pytest.mark.parametrize("width", [40, 80, 200])
def test_columns_stand_beneath_each_other_whatever_the_script(width: int) -> None:
    names = ["睡鼠在冬天睡得很久很久很久很久", "🐭" * 20, "plain", "e\u0301te\u0301"]
    status = {**STATUS, "models": [model(name, "awake") for name in names]}
    _, *lines = drawn(StatusTable(Console(width=width)).render(status), width)
    assert len({cell_len(line.partition("awake")[0]) for line in lines[: len(names)]}) == 1
    assert all(cell_len(line) <= width for line in lines)
    _, *lines = plain(status["models"]).splitlines()
    assert len({cell_len(line.partition("awake")[0]) for line in lines}) == 1


def test_an_old_table_says_so() -> None:
    *_, complaint = drawn(StatusTable(Console()).render(STATUS, "nobody answers"), 120)
    assert complaint == "nobody answers"


def test_elsewhere_all_is_said_in_the_line() -> None:
    header, a, b, c = plain(STATUS["models"]).splitlines()
    assert header.endswith("SLEEPS IN") and a.endswith("-")
    assert b.endswith("loading 1.0 GiB of 4.0 GiB") and c.endswith("the model's files are gone")
    assert plain([]).startswith("MODEL")


def test_who_waits_sees_what_the_model_does() -> None:
    screen = io.StringIO()
    with Bar(Console(file=screen, force_terminal=True, width=100)) as bar:
        for status in (model("b", "cold", waiting_for="turn"), *STATUS["models"][1:2], model("b", "awake")):
            bar.show(status)
            bar._live.refresh()
    shown = screen.getvalue()
    told = ("waiting for its turn", "waking", "1.0 GiB of 4.0 GiB", "thinking")
    places = [shown.index(text) for text in told]
    assert places == sorted(places)


def test_elsewhere_each_phase_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    for _ in range(2):
        lines.show(STATUS["models"][1])
    assert capsys.readouterr().out == "loading 4.0 GiB\n"
