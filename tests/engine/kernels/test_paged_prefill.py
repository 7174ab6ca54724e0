"""Prompts' rows against the CPU's attention, and the same rows from a prompt that is cut elsewhere."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.attention import AttentionSpec
from engine.attention.paged_prefill import TILE_ROWS, prefill, row_tiles
from tests.engine.kernels.paging import TOLERANCE, Scene, Shape, make_scene, padded

SHAPES = [(2, 1, 128), (2, 2, 64), (3, 1, 80), (1, 1, 96), (1, 1, 256), (2, 1, 20)]
LENGTHS = st.sampled_from([1, 15, 16, 17, 63, 64, 65, 127, 129, 200])
WINDOWS = st.sampled_from([None, 1, 7, 16, 64, 100, 1000])


def filled(scene: Scene, spec: AttentionSpec, device: torch.device) -> torch.Tensor:
    tiles = row_tiles([(first, count) for first, count, _ in scene.spans])
    out = torch.full_like(scene.queries, torch.nan).to(device)
    prefill(
        scene.queries.to(device),
        (scene.layer[0].to(device), scene.layer[1].to(device)),
        padded(scene.tables, max(map(len, scene.tables)) + 1, device),
        torch.tensor(tiles, dtype=torch.int32, device=device),
        spec,
        out,
    )
    return out.cpu()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@settings(max_examples=5)
@given(
    dtype=st.sampled_from([torch.float32, torch.float16]),
    sequences=st.lists(st.tuples(LENGTHS, LENGTHS), min_size=1, max_size=2),
    window=WINDOWS,
    softcap=st.sampled_from([None, 5.0]),
    seed=st.integers(0, 99),
)
def test_rows_are_told_what_the_cpu_tells_them(
    shape: Shape,
    device: torch.device,
    dtype: torch.dtype,
    sequences: list[tuple[int, int]],
    window: int | None,
    softcap: float | None,
    seed: int,
) -> None:
    """Of each sequence some are computed already, and the others are in this pass."""
    contexts = [context for context, _ in sequences]
    scene = make_scene(shape, dtype, contexts, [min(pair) for pair in sequences], seed)
    spec = AttentionSpec(0.2, window, softcap)
    expected = scene.reference(spec, generated=False)
    if window:
        scene.hide(window)
    found = filled(scene, spec, device)
    torch.testing.assert_close(found.float(), expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@pytest.mark.parametrize(("window", "softcap"), [(None, None), (17, None), (33, 5.0)])
def test_rows_see_what_they_may_and_no_more(
    window: int | None, softcap: float | None, device: torch.device
) -> None:
    """What none of them sees is NaN."""
    scene = make_scene((2, 1, 16), torch.float32, [150, 20], [90, 20])
    spec = AttentionSpec(0.2, window, softcap)
    expected = scene.reference(spec, generated=False)
    if window:
        scene.hide(window)
    torch.testing.assert_close(filled(scene, spec, device), expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("window", [None, 70])
def test_a_row_is_told_the_same_to_the_bit_wherever_its_prompt_is_cut(
    dtype: torch.dtype, window: int | None, device: torch.device
) -> None:
    length, spec = 210, AttentionSpec(0.2, window)
    scene = make_scene((1, 1, 64), dtype, [length, 40], [length, 9])
    whole = filled(scene, spec, device)[:length]
    for cuts in ([0, 37, length], [0, 128, 129, length]):
        parts = [
            filled(
                Scene(
                    scene.shape,
                    dtype,
                    [40, stop],
                    [9, stop - first],
                    scene.tables[::-1],
                    scene.layer,
                    torch.cat((scene.queries[length:], scene.queries[first:stop])),
                ),
                spec,
                device,
            )[9:]
            for first, stop in pairwise(cuts)
        ]
        assert torch.equal(torch.cat(parts), whole), cuts


def test_tiles_take_each_row_once() -> None:
    tiles = row_tiles([(5, 300), (0, 1), (64, TILE_ROWS)])
    rows = sorted((row, index) for index, start, count, _ in tiles for row in range(start, start + count))
    assert rows == [(row, (row >= 300) + (row >= 301)) for row in range(301 + TILE_ROWS)]
    positions = {start: position for _, start, _, position in tiles}
    assert positions == {0: 5, 128: 133, 256: 261, 300: 0, 301: 64}
