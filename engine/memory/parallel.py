"""Doing several things to memory at once: one thread moves bytes more slowly than the machine can."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

_MOST: Final = 8


def reader_threads() -> int:
    return max(2, min(_MOST, len(os.sched_getaffinity(0))))


def run_all(jobs: Iterable[Callable[[], None]], threads: int | None = None) -> None:
    """Every job once, by a few threads; the first failure stops them all and is raised. None is under way
    any more when this returns."""
    work = deque(jobs)

    def drain() -> None:
        while True:
            try:
                job = work.popleft()
            except IndexError:
                return
            try:
                job()
            except BaseException:
                work.clear()
                raise

    threads = min(threads or reader_threads(), len(work))
    if threads <= 1:
        drain()
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="reader") as pool:
        for result in [pool.submit(drain) for _ in range(threads)]:
            result.result()
