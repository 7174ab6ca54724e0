"""The table of `dormouse ps`: one line a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from gateway.commands.progress import WORDS, ProgressBar
from gateway.units import format_bytes, format_seconds

COLUMNS: Final = ("MODEL", "STATE", "SINCE", "IN FLIGHT", "QUEUED", "DEVICE", "HOST", "SLEEPS IN")
LEAST: Final = ("HOST", "DEVICE", "SINCE", "QUEUED", "IN FLIGHT", "SLEEPS IN")
"""Those that a narrow terminal does without, the first one first."""
SHORTEST_NAME: Final = 16
GAP: Final = "  "
STYLES: Final = {
    "awake": "green",
    "waking": "yellow",
    "draining": "yellow",
    "asleep": "blue",
    "cold": "dim",
    "failed": "red",
}


class StatusTable:
    """For a terminal. It remembers the bars of what is under way, whose rates come of watching."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars: dict[str, ProgressBar] = {}

    def render(self, status: dict[str, Any], complaint: str | None = None) -> RenderableType:
        """With a complaint, the table is old."""
        header, *rows = aligned(fitting([COLUMNS, *map(cells, status["models"])], self._console.width))
        lines: list[RenderableType] = [_line(GAP.join(header), "bold")]
        for model, (name, state, *rest) in zip(status["models"], rows, strict=True):
            coloured = Text(state, STYLES.get(model["state"], ""))
            line = Text(GAP).join([Text(name), coloured, *map(Text, rest)])
            lines.append(_line(line, "dim" if complaint else ""))
            lines += [Padding(under, (0, 0, 0, 2)) for under in self._notes(model)]
        return Group(*lines, "", Text(complaint, "red") if complaint else memory_line(status))

    def _notes(self, model: dict[str, Any]) -> Iterator[RenderableType]:
        if step := model["progress"]:
            bar = self._bars.setdefault(model["name"], ProgressBar(self._console))
            bar.show(step)
            yield bar
            return
        self._bars.pop(model["name"], None)
        if told := note(model):
            yield Text(told, "red")


def _line(text: Text | str, style: str) -> Text:
    """What does not fit is cut off, so that a model stays a line."""
    line = Text.assemble(text, style=style)
    line.no_wrap, line.overflow = True, "ellipsis"
    return line


def cells(model: dict[str, Any]) -> tuple[str, ...]:
    level = model["level"]
    return (
        model["name"],
        f"{model['state']} ({level})" if level else model["state"],
        _ago(model["state_seconds"]),
        str(model["in_flight"]),
        str(model["queued"]),
        format_bytes(model["device_bytes"]),
        format_bytes(model["host_bytes"]),
        _ago(model["sleeps_in_seconds"]),
    )


def note(model: dict[str, Any]) -> str:
    """What is under way, or why it failed."""
    if step := model["progress"]:
        phase = WORDS.get(step["phase"], step["phase"])
        return f"{phase} {format_bytes(step['done'])} of {format_bytes(step['total'])}"
    return str(model["last_error"]) if model["state"] == "failed" else ""


def memory_line(status: dict[str, Any]) -> Text:
    device, host = status["device"], status["host"]
    return Text(
        f"device {format_bytes(device['used'])} of {format_bytes(device['limit'])}, "
        f"parked in RAM {format_bytes(host['used'])} of {format_bytes(host['limit'])}",
        "dim",
    )


def plain(models: Sequence[dict[str, Any]]) -> str:
    """For everything that is not a terminal."""
    rows = aligned([(*COLUMNS, ""), *((*cells(model), note(model)) for model in models)])
    return "\n".join(GAP.join(row).rstrip() for row in rows)


def fitting(rows: Sequence[Sequence[str]], width: int) -> list[list[str]]:
    """Names shortened as far as they have to be, then columns left out, until a line has ``width`` cells."""
    columns = dict(zip(rows[0], zip(*rows, strict=True), strict=True))
    names = columns.pop("MODEL")
    enough = min(_width(names), SHORTEST_NAME)
    left_out = iter(LEAST)
    while (room := width - sum(len(GAP) + _width(column) for column in columns.values())) < enough:
        if not (column := next(left_out, None)):
            break
        del columns[column]
    fitted = [shortened(name, room) for name in names]
    return [list(row) for row in zip(fitted, *columns.values(), strict=True)]


def shortened(name: str, width: int) -> str:
    text = Text(name)
    text.truncate(max(1, width), overflow="ellipsis")
    return text.plain


def aligned(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """Padded, so that the columns are as wide as their widest cells."""
    widths = [_width(column) for column in zip(*rows, strict=True)]
    return [
        [cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)]
        for row in rows
    ]


def _width(column: Sequence[str]) -> int:
    """In cells of the terminal: some characters take two of them, some none."""
    return max(map(cell_len, column))


def _ago(seconds: float | None) -> str:
    return "-" if seconds is None else format_seconds(seconds)
