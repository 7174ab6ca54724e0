"""Several jobs at once."""

from __future__ import annotations

import threading
import time
from functools import partial

import pytest

from engine.memory.parallel import run_all


@pytest.mark.parametrize("threads", [None, 1, 3, 50])
@pytest.mark.parametrize("count", [0, 1, 2, 40])
def test_every_job_runs_once(threads: int | None, count: int) -> None:
    done: list[int] = []
    run_all((partial(done.append, number) for number in range(count)), threads)
    assert sorted(done) == list(range(count))


def test_a_failure_ends_the_rest_and_waits_for_what_is_under_way() -> None:
    running, failed = threading.Event(), threading.Event()
    done: list[str] = []

    def slow() -> None:
        running.set()
        failed.wait(10)
        done.append("slow")

    def fail() -> None:
        running.wait(10)
        failed.set()
        raise KeyError

    def late() -> None:
        time.sleep(0.001)
        done.append("late")

    with pytest.raises(KeyError):
        run_all([slow, fail, *[late] * 1000], 2)
    assert done[0] == "slow" and len(done) < 1000
