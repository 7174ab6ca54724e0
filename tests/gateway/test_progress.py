"""The bar of a download or a wake."""

from __future__ import annotations

import io
import re
import time

from rich.console import Console

from gateway.commands.progress import ProgressBar

GIB = 2**30


def drawn(bar: ProgressBar) -> str:
    console = Console(file=io.StringIO(), width=120)
    with console.capture() as capture:
        console.print(bar)
    return capture.get().strip()


def test_bytes_rate_and_time_left() -> None:
    bar = ProgressBar(Console())
    for tenth in range(4):
        bar.show({"phase": "download", "done": tenth * GIB, "total": 10 * GIB})
        time.sleep(0.02)
    line = drawn(bar)
    assert line.startswith("downloading ━━━━━")
    told = re.search(r"3\.0 GiB of 10\.0 GiB, ([\d.]+) (\w+)/s, (\S+)s left$", line)
    assert told, line
    rate = float(told[1]) * {"GiB": 1, "MiB": 1 / 1024}[told[2]]
    assert 3 / 0.5 < rate < 3 / 0.04  # three in 60 ms, on a busy machine too


def test_the_next_phase_begins_anew() -> None:
    bar = ProgressBar(Console())
    bar.show({"phase": "download", "done": GIB, "total": GIB})
    bar.show({"phase": "weights", "done": 0, "total": 2 * GIB})
    assert drawn(bar).startswith("loading")
    assert drawn(bar).endswith("0 B of 2.0 GiB")


def test_what_has_no_size_yet_has_no_numbers() -> None:
    bar = ProgressBar(Console())
    bar.show({"phase": "download", "done": 0, "total": 0})
    assert re.fullmatch("downloading [━╸╺ ]+", drawn(bar))
