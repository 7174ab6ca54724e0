"""Planted faults in Triton's kernels, in their source, and the test that must catch each. Importing this
imports triton."""

from __future__ import annotations

import inspect
import linecache
from collections.abc import Mapping
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from engine.attention import paged_decode, paged_prefill, tiles
from engine.kernels import choose, gated, rms_norm, rotate_write, rounding


class Fault(NamedTuple):
    module: ModuleType
    kernel: str
    right: str
    wrong: str
    test: str


DECODE = "test_paged_decode.py::test_a_row_sees_what_it_may_and_no_more"
PREFILL = "test_paged_prefill.py::test_rows_see_what_they_may_and_no_more"
NORM = "test_fused.py::test_norm"
HEADS = "test_fused.py::test_heads_are_normed_and_turned_and_cached"
DRAWS = "test_choose.py::test_draws_follow_the_distribution"

FAULTS: Mapping[str, Fault] = {
    "a window is one too wide in decoding": Fault(
        paged_decode,
        "_pieces",
        "positions >= context - window",
        "positions >= context - window - 1",
        DECODE,
    ),
    "a piece writes where its neighbour does": Fault(
        paged_decode,
        "_pieces",
        "tl.log2(total), mask=group < GROUP)",
        "tl.log2(total), mask=group < GROUP_TILE)",
        "test_paged_decode.py::test_a_piece_writes_its_own_and_nothing_else",
    ),
    "what lies behind a context is seen in decoding": Fault(
        paged_decode, "_pieces", "seen = positions < end", "seen = positions < end + 1", DECODE
    ),
    "pieces are mixed evenly": Fault(
        paged_decode,
        "_merge",
        "shares /= tl.where(total == 0, 1.0, total)",
        "shares = tl.where(made, 1.0, 0.0) / tl.sum(tl.where(made, 1.0, 0.0), 0)",
        "test_paged_decode.py::test_a_long_row_has_longer_pieces_not_more",
    ),
    "a prompt's row sees the next one": Fault(
        paged_prefill,
        "_tile",
        "slots[None, :] <= positions[:, None]",
        "slots[None, :] <= positions[:, None] + 1",
        PREFILL,
    ),
    "a prompt is read from before its window": Fault(
        paged_prefill,
        "_tile",
        "slots[None, :] > positions[:, None] - window",
        "slots[None, :] >= positions[:, None] - window",
        PREFILL,
    ),
    "sums are not scaled down when a greater score comes": Fault(
        tiles, "take_in", "mixed = mixed * kept[:, None]", "mixed = mixed * 1.0", PREFILL
    ),
    "a cap is left out": Fault(
        tiles,
        "take_in",
        "scores = (2 * tl.sigmoid(2 * scores) - 1) * cap",
        "scores = scores * cap",
        DECODE,
    ),
    "a norm is of the sum, not of the mean": Fault(
        rms_norm, "_norm", "tl.sum(given * given, 0) / SIZE + eps", "tl.sum(given * given, 0) + eps", NORM
    ),
    "the sum that is kept is the old one": Fault(
        rms_norm,
        "_norm",
        "tl.store(total + row * total_row + at, given.to(dtype), mask=inside)",
        "tl.store(total + row * total_row + at, added.to(dtype), mask=inside)",
        "test_fused.py::test_norm_of_a_sum_that_is_kept",
    ),
    "a normed row is never rounded before its weight": Fault(
        rounding, "weighed", 'KIND == "rounded"', 'KIND == "never"', NORM
    ),
    "heads are turned the other way": Fault(
        rotate_write, "_rotate", "(straight + across).to(dtype)", "(straight - across).to(dtype)", HEADS
    ),
    "values are turned too": Fault(
        rotate_write, "_rotate", "(at < DIM) & (is_query | is_key)", "(at < DIM)", HEADS
    ),
    "a row that is none is written to the first slot": Fault(
        rotate_write, "_rotate", "tl.load(slots + row)", "tl.maximum(tl.load(slots + row), 0)", HEADS
    ),
    "the gate is taken for what goes up": Fault(
        gated, "_gated", "active * up", "active * gate", "test_fused.py::test_gate_times_up"
    ),
    "top-k keeps one more": Fault(
        choose, "_choose", "least, top_k, ONE", "least, top_k + 1, ONE", DRAWS + "[top-k]"
    ),
    "top-p is of the whole, whatever top-k leaves": Fault(
        choose,
        "_choose",
        "top_p * mass, ONE",
        "top_p * _mass(own, vocabulary, best, temperature, least * 0, TILE), ONE",
        DRAWS + "[all]",
    ),
    "each tile draws by itself": Fault(
        choose,
        "_draw",
        "before + tl.cumsum(weights, 0) > target",
        "tl.cumsum(weights, 0) > target",
        "test_choose.py::test_draws_from_several_tiles_follow_it_too",
    ),
    "min-p is forgotten": Fault(
        choose,
        "_choose",
        "tl.maximum(least, tl.load(setting + 3).to(tl.int32, bitcast=True))",
        "tl.maximum(least, 0)",
        DRAWS + "[min-p]",
    ),
}

MODULES = (tiles, paged_decode, paged_prefill, rms_norm, rotate_write, rounding, gated, choose)


def plant(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel again, from its source with the mistake in it, wherever its name is imported."""
    kernel: Any = getattr(fault.module, fault.kernel)
    source = inspect.getsource(kernel.fn)
    assert source.count(fault.right) == 1, "the kernel is not what the fault was written for"
    source = "from __future__ import annotations\n" + source.replace(fault.right, fault.wrong)
    file = f"<{fault.kernel} with a fault>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    names = dict(vars(fault.module))
    exec(compile(source, file, "exec"), names)
    for module in MODULES:
        if vars(module).get(fault.kernel) is kernel:
            monkeypatch.setattr(module, fault.kernel, names[fault.kernel])
