"""``torch_memory_saver``'s pause and resume of as many bytes, where it is installed."""

from __future__ import annotations

import time
from importlib.util import find_spec

import torch

from tests.bench.gpu import card
from tests.bench.gpu.card import GIB
from tests.bench.gpu.result import Result, read

PIECES = 15
"""Of a GiB: about what an 8B takes."""


def compare(result: Result) -> None:
    if find_spec("torch_memory_saver") is None:
        result.note("there is no torch_memory_saver here: nothing to compare with")
        return
    try:
        _measure(result)
    except Exception as error:
        result.failure("torch_memory_saver", error)


def _measure(result: Result) -> None:
    from torch_memory_saver import torch_memory_saver as saver

    saver.hook_mode = "torch"
    with saver.region(tag="weights", enable_cpu_backup=True):
        held = [torch.full((GIB,), number, dtype=torch.uint8, device=card.DEVICE) for number in range(PIECES)]
    for name in ("first", "second"):
        card.finish()
        began = time.perf_counter()
        saver.pause("weights")
        paused = time.perf_counter()
        saver.resume("weights")
        card.finish()
        result.number(f"saver_{name}_pause_seconds", paused - began)
        result.number(f"saver_{name}_resume_gb_s", PIECES * GIB / (time.perf_counter() - paused) / 1e9)
    ours = read(result.path.with_name("gpu-wake.json")).get("numbers", {})
    if "light_wake_gb_s" in ours:
        result.number("our_light_wake_gb_s", ours["light_wake_gb_s"]["value"])
    del held
