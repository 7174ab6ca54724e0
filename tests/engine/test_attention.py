"""Attention over blocks, against the formula in double precision: every layout of blocks, window and cap."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch

from engine.attention import AttentionSpec, attend, make_plan, write_kv
from engine.attention.cpu import KVLayer
from engine.blocks import BLOCK_SIZE, blocks_for
from engine.kv_memory import KVMemory
from engine.memory.cpu import CpuArena
from engine.memory.sizes import HUGE_PAGE, PAGE

BLOCKS = 400
LENGTHS = (1, 15, 16, 17, 40, 203, 530)
CPU = torch.device("cpu")
SPECS = {
    "plain": AttentionSpec(0.3),
    "window": AttentionSpec(0.3, window=7),
    "cap": AttentionSpec(0.2, softcap=5.0),
    "window and cap": AttentionSpec(0.2, window=40, softcap=5.0),
}
BOTH_ENDS = ("plain", "window and cap")
LAYOUTS = {
    "neighbours": lambda count, at: list(range(at, at + count)),
    "a shared beginning": lambda count, at: [(at + 150) % BLOCKS, *range(at + 1, at + count)],
    "scattered": lambda count, at: random.Random(at).sample(range(BLOCKS), count),
}


@pytest.fixture(params=[(32, 4, 2), (20, 6, 2), (128, 16, 8)], ids=str)
def shape(request: pytest.FixtureRequest) -> tuple[int, int, int]:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def memory(shape: tuple[int, int, int]) -> Iterator[KVMemory]:
    size, _, kv_heads = shape
    page = HUGE_PAGE if size == 20 else PAGE
    memory = KVMemory(CpuArena, (2, kv_heads, size), torch.float32, BLOCKS, page=page)
    for chunk in range(memory.chunk_of(BLOCKS - 1) + 1):
        memory.commit(chunk)
    yield memory
    memory.arena.close()


def formula(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, spec: AttentionSpec) -> torch.Tensor:
    """The last ``len(q)`` of ``len(k)`` positions look back."""
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1).double() for x in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q.double(), k) * spec.scale
    if spec.softcap:
        scores = torch.tanh(scores / spec.softcap) * spec.softcap
    rows, columns = torch.arange(len(k) - len(q), len(k))[:, None], torch.arange(len(k))[None]
    seen = columns <= rows
    if spec.window:
        seen &= columns > rows - spec.window
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(~seen, -torch.inf).softmax(-1), v)


def told(
    layer: KVLayer,
    spans: list[tuple[int, int, list[int]]],
    prompts: list[int],
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    spec: AttentionSpec,
) -> torch.Tensor:
    """What the rows of some sequences attend to: those of ``prompts``, of these lengths, then the others."""
    parts: dict[bool, list[tuple[int, int, list[int]]]] = {False: [], True: []}
    rows: dict[bool, list[int]] = {False: [], True: []}
    start = 0
    for (first, count, table), prompt in zip(spans, prompts, strict=True):
        cut = min(max(prompt - first, 0), count)
        for generated, begin, stop in ((False, 0, cut), (True, cut, count)):
            if begin < stop:
                parts[generated].append((first + begin, stop - begin, table))
                rows[generated] += range(start + begin, start + stop)
        start += count
    out = torch.empty_like(q)
    for generated, chosen in rows.items():
        if chosen:
            plan = make_plan(parts[generated], CPU, generated=generated)
            write_kv(plan, layer, k[chosen], v[chosen])
            out[chosen] = attend(plan, layer, q[chosen], spec)
    return out


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_attention_is_the_formula(
    memory: KVMemory, shape: tuple[int, int, int], spec: AttentionSpec, layout: str
) -> None:
    torch.manual_seed(0)
    size, heads, kv_heads = shape
    for at, length in enumerate(LENGTHS):
        table = LAYOUTS[layout](blocks_for(length), 17 * at)
        k, v = torch.randn(2, length, kv_heads, size)
        q = torch.randn(length, heads, size)
        expected = formula(q, k, v, spec)
        for rows, prompt in (
            (length, length),
            (min(length, 5), length),
            (1, length - 1),
            (length, length // 2),
        ):
            first = length - rows
            if first:
                write_kv(make_plan([(0, first, table)], CPU), memory.layers[1], k[:first], v[:first])
            found = told(
                memory.layers[1], [(first, rows, table)], [prompt], q[first:], k[first:], v[first:], spec
            )
            torch.testing.assert_close(found.double(), expected[first:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("spec", [SPECS[name] for name in BOTH_ENDS], ids=BOTH_ENDS)
def test_a_row_is_told_the_same_to_the_bit(
    shape: tuple[int, int, int], dtype: torch.dtype, spec: AttentionSpec
) -> None:
    """Wherever its prompt is cut, its blocks lie, and whoever is beside it; rows of an answer too, generated
    one by one or computed again together."""
    torch.manual_seed(0)
    size, heads, kv_heads = shape
    length, prompt = 560, 515
    blocks = blocks_for(length)
    keys, values = torch.full((2, 2 * blocks, BLOCK_SIZE, kv_heads, size), torch.nan, dtype=dtype)
    layer = (keys, values)
    k, v = torch.randn(2, length, kv_heads, size).to(dtype)
    q = torch.randn(length, heads, size).to(dtype)

    def compute(table: list[int], cuts: list[int], beside: list[int] | None = None) -> torch.Tensor:
        found = []
        for cache in layer if beside is None else ():
            cache.fill_(torch.nan)
        for first, stop in pairwise([*cuts, length]):
            spans, rows, prompts = [(first, stop - first, table)], list(range(first, stop)), [prompt]
            if beside and first:
                spans, rows = [(first - 1, 1, beside), *spans], [first - 1, *rows]
                prompts = [prompt, prompt]
            found.append(told(layer, spans, prompts, q[rows], k[rows], v[rows], spec)[first - stop :])
        return torch.cat(found)

    table = list(range(blocks))
    whole = compute(table, [0])
    assert not whole.isnan().any()
    one_by_one = compute(table, [0, *range(prompt, length)])
    assert torch.equal(one_by_one, whole)
    for cuts in ([0, 16, 48, 512, 530], [0, 5, 6, 100, 514, 515, 516], list(range(0, length, 37))):
        assert torch.equal(compute(table, cuts), whole), cuts
    compute(table, [0])
    scattered = [blocks + block * 3 % blocks for block in range(blocks)]
    two_runs = [*range(blocks, blocks + 20), *range(20, blocks)]
    for other in (scattered, two_runs):
        assert torch.equal(compute(other, [0, 512, 530], beside=table), whole)


def test_a_released_chunk_reads_zero_and_holds_nothing() -> None:
    memory = KVMemory(CpuArena, (2, 2, 32), torch.bfloat16, BLOCKS)
    memory.commit(0)
    assert memory.committed_bytes == memory.chunk_bytes == memory.arena.committed
    keys, values = memory.layers[1]
    keys[memory.blocks_of(0)] = 1
    values[memory.blocks_of(0)] = 2
    memory.release(0)
    assert memory.arena.committed == memory.committed_bytes == 0
    assert not keys[memory.blocks_of(0)].any()
    assert not values[memory.blocks_of(0)].any()
    memory.arena.close()
