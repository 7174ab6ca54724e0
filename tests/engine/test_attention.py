"""Attention over blocks, against the formula in double precision: every layout of blocks, window and cap."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
import torch

from engine.attention import AttentionSpec, attend, make_plan, write_kv
from engine.blocks import blocks_for
from engine.kv_memory import KVMemory
from engine.memory.cpu import CpuArena

BLOCKS = 400
LENGTHS = (1, 15, 16, 17, 40, 100, 203)
CPU = torch.device("cpu")
SPECS = {
    "plain": AttentionSpec(0.3),
    "window": AttentionSpec(0.3, window=7),
    "cap": AttentionSpec(0.2, softcap=5.0),
    "window and cap": AttentionSpec(0.2, window=40, softcap=5.0),
}
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
    memory = KVMemory(CpuArena, (2, kv_heads, size), torch.float32, BLOCKS)
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
        for rows in sorted({1, min(length, 5), length}):
            first = length - rows
            if first:
                write_kv(make_plan([(0, first, table)], CPU), memory.layers[1], k[:first], v[:first])
            plan = make_plan([(first, rows, table)], CPU)
            write_kv(plan, memory.layers[1], k[first:], v[first:])
            q = torch.randn(rows, heads, size)
            found = attend(plan, memory.layers[1], q, spec)
            torch.testing.assert_close(found.double(), formula(q, k, v, spec), atol=1e-5, rtol=1e-5)


def test_no_answer_depends_on_its_neighbours(memory: KVMemory, shape: tuple[int, int, int]) -> None:
    """Rows of several sequences in one plan, to the bit."""
    torch.manual_seed(0)
    size, heads, kv_heads = shape
    spans = [(0, 40, list(range(3))), (99, 1, list(range(10, 17))), (30, 7, [50, 20, 30]), (15, 1, [60])]
    rows = sum(count for _, count, _ in spans)
    layer = memory.layers[0]
    for cache in layer:
        cache.normal_()
    k, v = torch.randn(2, rows, kv_heads, size)
    q = torch.randn(rows, heads, size)
    plan = make_plan(spans, CPU)
    write_kv(plan, layer, k, v)
    together = attend(plan, layer, q, SPECS["plain"]).split([count for _, count, _ in spans])
    for span, mixed, mine in zip(spans, together, q.split([count for _, count, _ in spans]), strict=True):
        assert torch.equal(attend(make_plan([span], CPU), layer, mine, SPECS["plain"]), mixed)


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
