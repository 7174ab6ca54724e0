"""A layer's small operations against the decoder's own functions, rounding included."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from engine.attention import make_plan
from engine.blocks import BLOCK_SIZE
from engine.kernels.gated import gated
from engine.kernels.rms_norm import add_rms_norm, rms_norm
from engine.kernels.rotate_write import rotate_write
from engine.kernels.rounding import NormWeight
from engine.models.activations import FUNCTIONS
from engine.models.operations import TorchOperations
from engine.models.rope import Rope, rotate
from engine.models.rope_config import RopeConfig

KINDS: list[NormWeight] = ["rounded", "wide", "one_plus"]
DTYPES = [torch.float32, torch.float16]
EPS = 1e-6
STEP = {torch.float32: 2e-6, torch.float16: 2e-3}
"""Two steps of the dtype: sums in another order may round to the other side, once or twice."""


def torch_operations(kind: NormWeight, scale: float = 1.0) -> TorchOperations:
    family = SimpleNamespace(norm_weight=kind)
    config = SimpleNamespace(norm_eps=EPS, family=family, residual_scale=scale, activation="silu")
    return TorchOperations(config)  # type: ignore[arg-type]


def reference_norm(x: torch.Tensor, weight: torch.Tensor, kind: NormWeight) -> torch.Tensor:
    return torch_operations(kind).norm(x, weight)


def assert_close(found: torch.Tensor, expected: torch.Tensor, unequal: float = 0.02) -> None:
    """Within rounding; and rounded alike but for a share."""
    found, step = found.cpu(), STEP[expected.dtype]
    torch.testing.assert_close(found, expected, atol=step, rtol=step)
    if expected.dtype == torch.float16:
        assert (found != expected).float().mean() < unequal


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [48, 896, 3072])
def test_norm(kind: NormWeight, dtype: torch.dtype, size: int, device: torch.device) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(3, size + 8).to(dtype), torch.randn(size).to(dtype)
    out = torch.full((3, size), torch.nan, dtype=dtype, device=device)
    rms_norm(x.to(device)[:, :size], weight.to(device), EPS, kind, out)
    assert_close(out, reference_norm(x[:, :size], weight, kind))


@pytest.mark.parametrize("scale", [1.0, 0.22])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_norm_of_a_sum_that_is_kept(scale: float, dtype: torch.dtype, device: torch.device) -> None:
    torch.manual_seed(0)
    x, mixed, weight = (
        torch.randn(2, 200).to(dtype),
        torch.randn(2, 200).to(dtype),
        torch.randn(200).to(dtype),
    )
    total, normed = torch_operations("rounded", scale).add_norm(x, mixed, weight)
    kept, out = x.to(device), torch.full_like(x, torch.nan).to(device)
    add_rms_norm(kept, mixed.to(device), scale, weight.to(device), EPS, "rounded", kept, out)
    assert torch.equal(kept.cpu(), total)
    assert_close(out, normed)


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")  # numpy's word for what gives 0 in the end
@pytest.mark.parametrize("activation", FUNCTIONS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gate_times_up(activation: str, dtype: torch.dtype, device: torch.device) -> None:
    torch.manual_seed(0)
    both = (torch.randn(2, 2 * 1100) * 3).to(dtype)
    out = torch.full((2, 1100), torch.nan, dtype=dtype, device=device)
    gated(both.to(device), activation, out)
    gate, up = both.chunk(2, dim=-1)
    # Far below zero torch's GELUs are differences of numbers that are nearly the same.
    assert_close(out, FUNCTIONS[activation](gate) * up, unequal=0.05)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", [None, *KINDS])
@pytest.mark.parametrize(
    ("shape", "dim", "wide"),
    [((6, 2, 128), 128, False), ((3, 1, 80), 80, True), ((2, 2, 96), 72, False), ((4, 1, 20), 0, False)],
)
def test_heads_are_normed_and_turned_and_cached(
    shape: tuple[int, int, int],
    dim: int,
    wide: bool,
    kind: NormWeight | None,
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    torch.manual_seed(0)
    (heads, kv_heads, size), rows = shape, 3
    mixed = torch.randn(rows, heads + 2 * kv_heads, size).to(dtype)
    weights = torch.randn(2, size).to(dtype)
    both, fresh = mixed[:, : heads + kv_heads], mixed[:, heads + kv_heads :]
    if kind:
        parts = zip((both[:, :heads], both[:, heads:]), weights, strict=True)
        both = torch.cat([reference_norm(part, weight, kind) for part, weight in parts], dim=1)
    rotation = None
    if dim:
        rope = Rope(RopeConfig("default", 10_000.0, dim, 512, {}), torch.device("cpu"))
        positions = torch.tensor([37, 3, 16])
        rotation = rope(positions, positions, torch.float32 if wide else dtype)
        both = rotate(both, *rotation)
    plan = make_plan([(37, 1, [4, 2, 5]), (3, 1, [0]), (16, 1, [1, 3])], torch.device("cpu"))
    expected = torch.full((2, 6, BLOCK_SIZE, kv_heads, size), torch.nan, dtype=dtype)
    found = expected.clone().to(device)
    slots = plan.slots.clone()
    slots[1] = -1
    for row in (0, 2):
        for cache, new in zip(expected, (both[row, heads:], fresh[row]), strict=True):
            cache.flatten(0, 1)[plan.slots[row]] = new
    queries = torch.full((rows, heads, size), torch.nan, dtype=dtype, device=device)
    rotate_write(
        mixed.to(device),
        None if rotation is None else (rotation[0].to(device), rotation[1].to(device)),
        None if kind is None else (weights[0].to(device), weights[1].to(device), EPS, kind),
        slots.to(device),
        (found[0], found[1]),
        queries,
    )
    assert_close(queries, both[:, :heads])
    torch.testing.assert_close(found.isnan().cpu(), expected.isnan())
    assert_close(found.cpu().nan_to_num(), expected.nan_to_num())
    if kind is None:
        assert torch.equal(queries.cpu(), both[:, :heads])


def test_a_row_is_normed_the_same_to_the_bit_in_any_company(device: torch.device) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(4, 300, device=device), torch.randn(300, device=device)
    whole, alone = torch.empty_like(x), torch.empty_like(x)
    rms_norm(x, weight, EPS, "wide", whole)
    for row in range(4):
        rms_norm(x[row : row + 1], weight, EPS, "wide", alone[row : row + 1])
    assert torch.equal(alone, whole)
