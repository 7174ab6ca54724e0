"""Decode attention against the CPU's, and a row alone against the same row in company."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.attention import AttentionSpec, paged_decode
from engine.attention.paged_decode import decode, most_pieces, partial_results
from tests.engine.kernels.paging import TOLERANCE, Scene, Shape, make_scene, padded

SHAPES = [(4, 1, 128), (2, 2, 64), (7, 1, 64), (3, 1, 80), (2, 1, 96), (2, 1, 256), (3, 1, 20)]
LENGTHS = st.sampled_from([1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 129, 200, 300])
WINDOWS = st.sampled_from([None, 1, 7, 16, 100, 128, 1000])


def decoded(
    scene: Scene, spec: AttentionSpec, device: torch.device, rows: list[int] | None = None, width: int = 0
) -> torch.Tensor:
    """Of some of the rows, with room for other rows and longer tables, and a row that is none at the end."""
    heads, kv_heads, size = scene.shape
    rows = list(range(len(scene.contexts))) if rows is None else rows
    contexts = torch.tensor([*(scene.contexts[row] for row in rows), 0], dtype=torch.int32, device=device)
    tables = [scene.tables[row] for row in rows]
    partial = partial_results(len(rows) + 3, heads, kv_heads, size, device)
    out = torch.full((len(rows) + 1, heads, size), torch.nan, dtype=scene.dtype, device=device)
    for room in partial:
        room.fill_(torch.nan)
    decode(
        torch.cat((scene.queries[rows], torch.full_like(scene.queries[:1], torch.nan))).to(device),
        (scene.layer[0].to(device), scene.layer[1].to(device)),
        padded([*tables, []], max(width, *map(len, tables)), device),
        contexts,
        spec,
        partial,
        out,
    )
    assert not out[-1].any()
    return out[:-1].cpu()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@settings(max_examples=4)
@given(
    dtype=st.sampled_from([torch.float32, torch.float16]),
    contexts=st.lists(LENGTHS, min_size=1, max_size=2),
    window=WINDOWS,
    softcap=st.sampled_from([None, 5.0]),
    seed=st.integers(0, 99),
)
def test_rows_are_told_what_the_cpu_tells_them(
    shape: Shape,
    device: torch.device,
    dtype: torch.dtype,
    contexts: list[int],
    window: int | None,
    softcap: float | None,
    seed: int,
) -> None:
    scene = make_scene(shape, dtype, contexts, seed=seed)
    spec = AttentionSpec(0.2, window, softcap)
    expected = scene.reference(spec, generated=True)
    if window:
        scene.hide(window)
    found = decoded(scene, spec, device)
    torch.testing.assert_close(found.float(), expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


def test_a_piece_writes_its_own_and_nothing_else(device: torch.device) -> None:
    """Where others that run at the same time write."""
    heads, kv_heads, size = shape = (3, 1, 16)
    scene = make_scene(shape, torch.float32, [5, 300])
    partial = partial_results(2, heads, kv_heads, size, device)
    for room in partial:
        room.fill_(torch.nan)
    decode(
        scene.queries.to(device),
        (scene.layer[0].to(device), scene.layer[1].to(device)),
        padded(scene.tables, 32, device),
        torch.tensor(scene.contexts, dtype=torch.int32, device=device),
        AttentionSpec(0.2),
        partial,
        torch.empty_like(scene.queries).to(device),
    )
    for room in partial:
        for row, made in enumerate((1, 3)):
            assert not room[row, :made].isnan().any()
            assert room[row, made:].isnan().all()


@pytest.mark.parametrize(("window", "softcap"), [(None, None), (17, None), (33, 5.0)])
def test_a_row_sees_what_it_may_and_no_more(
    window: int | None, softcap: float | None, device: torch.device
) -> None:
    """All else is NaN: before its window, and behind it in its block."""
    scene = make_scene((2, 1, 16), torch.float32, [50, 20])
    spec = AttentionSpec(0.2, window, softcap)
    expected = scene.reference(spec, generated=True)
    if window:
        scene.hide(window)
    torch.testing.assert_close(decoded(scene, spec, device), expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("window", [None, 90])
def test_a_row_is_told_the_same_to_the_bit_in_any_company(
    dtype: torch.dtype, window: int | None, device: torch.device
) -> None:
    scene = make_scene((2, 1, 64), dtype, [1, 300, 17, 129])
    spec = AttentionSpec(0.2, window)
    whole = decoded(scene, spec, device)
    for row in range(len(whole)):
        assert torch.equal(decoded(scene, spec, device, [row]), whole[row : row + 1])
    assert torch.equal(decoded(scene, spec, device, [3, 1, 0], width=40), whole[[3, 1, 0]])


def test_a_long_row_has_longer_pieces_not_more(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paged_decode, "_PROGRAMS", 4)
    assert most_pieces(1) == 4
    scene = make_scene((2, 1, 16), torch.float32, [800, 5])
    spec = AttentionSpec(0.2)
    torch.testing.assert_close(
        decoded(scene, spec, device), scene.reference(spec, generated=True), atol=2e-5, rtol=2e-5
    )


def test_queries_may_be_a_part_of_a_wider_row(device: torch.device) -> None:
    """As they lie beside keys and values in what their projection gives."""
    scene = make_scene((4, 2, 64), torch.float32, [33, 70])
    wide = torch.cat((scene.queries, torch.full((2, 4, 64), torch.nan)), dim=1).to(device)
    out = torch.full((2, 8, 64), torch.nan, device=device)
    spec = AttentionSpec(0.2)
    decode(
        wide[:, :4],
        (scene.layer[0].to(device), scene.layer[1].to(device)),
        padded(scene.tables, 5, device),
        torch.tensor(scene.contexts, dtype=torch.int32, device=device),
        spec,
        partial_results(2, 4, 2, 64, device),
        out[:, 4:],
    )
    assert torch.equal(out[:, 4:].cpu(), decoded(scene, spec, device))
    assert out[:, :4].isnan().all()
