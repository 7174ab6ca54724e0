"""Triton's kernels compiled, in bfloat16, against torch's operations in float32 or on the device.
``tests.engine.kernels`` has the others, which run here too where there is pytest."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import torch

from engine.attention import AttentionSpec
from engine.attention.paged_decode import decode, partial_results
from engine.attention.paged_prefill import prefill, row_tiles
from engine.kernels.rotate_write import rotate_write
from engine.models.operations import TorchOperations
from engine.models.rope import Rope, rotate
from engine.models.rope_config import RopeConfig
from engine.models.triton_operations import TritonOperations
from tests.bench.gpu import card
from tests.engine.kernels.paging import Scene, make_scene, padded

DTYPE = torch.bfloat16
NEAR = 0.02
"""Some steps of bfloat16 for numbers around one."""
Check = Callable[[], None]
SHAPES = [(32, 8, 128), (16, 8, 128), (14, 2, 64), (8, 4, 256), (6, 2, 80)]
WIDE = SHAPES[0]
LONG = 2500
ROWS = [(1, 4096), (300, 1024), (64, 5120)]
PLAIN = AttentionSpec(0.09)
CASES = [
    *((shape, PLAIN) for shape in SHAPES),
    (SHAPES[0], AttentionSpec(0.09, window=100)),
    (SHAPES[3], AttentionSpec(0.06, window=600, softcap=30.0)),
]


def on_device(scene: Scene) -> tuple[torch.Tensor, torch.Tensor]:
    return scene.layer[0].to(card.DEVICE), scene.layer[1].to(card.DEVICE)


def decoded(scene: Scene, spec: AttentionSpec, rows: list[int]) -> torch.Tensor:
    heads, kv_heads, size = scene.shape
    out = torch.full((len(rows), heads, size), torch.nan, dtype=DTYPE, device=card.DEVICE)
    decode(
        scene.queries[rows].to(card.DEVICE),
        on_device(scene),
        padded([scene.tables[row] for row in rows], max(map(len, scene.tables)), card.DEVICE),
        torch.tensor([scene.contexts[row] for row in rows], dtype=torch.int32, device=card.DEVICE),
        spec,
        partial_results(len(rows), heads, kv_heads, size, card.DEVICE),
        out,
    )
    return out


def test_decoding_is_told_what_the_cpu_tells() -> None:
    for shape, spec in CASES:
        scene = make_scene(shape, DTYPE, [1, 17, 129, LONG])
        expected = scene.reference(spec, generated=True)
        found = decoded(scene, spec, [0, 1, 2, 3]).float().cpu()
        torch.testing.assert_close(found, expected, atol=NEAR, rtol=NEAR)


def test_a_row_is_told_the_same_to_the_bit_in_any_company() -> None:
    scene = make_scene(WIDE, DTYPE, [LONG // 2, 3, LONG // 4, 64])
    whole = decoded(scene, PLAIN, [0, 1, 2, 3])
    for row in range(4):
        assert torch.equal(decoded(scene, PLAIN, [row]), whole[row : row + 1])


def test_prompts_are_told_what_the_cpu_tells() -> None:
    for shape, spec in CASES:
        scene = make_scene(shape, DTYPE, [LONG // 4, 130, 16], [LONG // 5, 130, 1])
        out = torch.full_like(scene.queries, torch.nan).to(card.DEVICE)
        tiles = row_tiles([(first, count) for first, count, _ in scene.spans])
        prefill(
            scene.queries.to(card.DEVICE),
            on_device(scene),
            padded(scene.tables, max(map(len, scene.tables)), card.DEVICE),
            torch.tensor(tiles, dtype=torch.int32, device=card.DEVICE),
            spec,
            out,
        )
        expected = scene.reference(spec, generated=False)
        torch.testing.assert_close(out.float().cpu(), expected, atol=NEAR, rtol=NEAR)


def test_norms_sums_and_gates_round_as_torchs() -> None:
    torch.manual_seed(0)
    for kind in ("rounded", "wide", "one_plus"):
        for rows, size in ROWS:
            family = SimpleNamespace(norm_weight=kind)
            config = SimpleNamespace(norm_eps=1e-6, family=family, residual_scale=1.0, activation="silu")
            x, mixed = torch.randn(2, rows, size, device=card.DEVICE, dtype=DTYPE)
            weight = torch.randn(size, device=card.DEVICE, dtype=DTYPE)
            ours, theirs = TritonOperations(config), TorchOperations(config)  # type: ignore[arg-type]
            pairs = [
                (ours.norm(x, weight), theirs.norm(x, weight)),
                *zip(ours.add_norm(x, mixed, weight), theirs.add_norm(x, mixed, weight), strict=True),
                (ours.gate(x), theirs.gate(x)),
            ]
            for found, expected in pairs:
                torch.testing.assert_close(found, expected, atol=NEAR, rtol=NEAR)
                assert (found != expected).float().mean() < 0.02


def test_heads_are_turned_and_cached() -> None:
    torch.manual_seed(0)
    (heads, kv_heads, size), rows = WIDE, 5
    mixed = torch.randn(rows, heads + 2 * kv_heads, size, device=card.DEVICE, dtype=DTYPE)
    rope = Rope(RopeConfig("default", 1_000_000.0, size, 4096, {}), card.DEVICE)
    positions = torch.tensor([0, 1, 16, 1000, 4095], device=card.DEVICE)
    rotation = rope(positions, positions, DTYPE)
    layer = (torch.full((6, 16, kv_heads, size), torch.nan, device=card.DEVICE, dtype=DTYPE),) * 2
    layer = (layer[0], layer[0].clone())
    slots = torch.tensor([3, 95, -1, 40, 17], device=card.DEVICE)
    queries = torch.full((rows, heads, size), torch.nan, device=card.DEVICE, dtype=DTYPE)
    rotate_write(mixed, rotation, None, slots, layer, queries)
    turned = rotate(mixed[:, : heads + kv_heads], *rotation)
    torch.testing.assert_close(queries, turned[:, :heads], atol=NEAR, rtol=NEAR)
    for cache, fresh in zip(layer, (turned[:, heads:], mixed[:, heads + kv_heads :]), strict=True):
        flat = cache.flatten(0, 1)
        for row, slot in enumerate(slots.tolist()):
            if slot >= 0:
                torch.testing.assert_close(flat[slot], fresh[row], atol=NEAR, rtol=NEAR)
        assert int(flat.isnan().all(-1).all(-1).sum()) == len(flat) - 4
