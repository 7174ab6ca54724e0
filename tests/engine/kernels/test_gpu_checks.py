"""The checks that a GPU makes of the kernels, where there is none: interpreted, in float16, and smaller."""

from __future__ import annotations

import inspect
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from engine.attention import AttentionSpec
from tests.bench.gpu import attention, card
from tests.bench.gpu.result import Result
from tests.gpu import test_kernels

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="they run there themselves")
CHECKS = [
    check
    for name, check in vars(test_kernels).items()
    if name.startswith("test_") and inspect.isfunction(check)
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_checks_hold(
    check: test_kernels.Check, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(card, "DEVICE", device)
    monkeypatch.setattr(test_kernels, "DTYPE", torch.float16)
    monkeypatch.setattr(test_kernels, "CASES", [((2, 1, 64), AttentionSpec(0.1, window=100, softcap=30.0))])
    monkeypatch.setattr(test_kernels, "WIDE", (2, 1, 64))
    monkeypatch.setattr(test_kernels, "LONG", 300)
    monkeypatch.setattr(test_kernels, "ROWS", [(3, 200)])
    check()


def by_torch(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, *sizes: Any, **how: Any) -> Any:
    """As ``varlen_attn``, which is for cards only, with the arguments that it is given here."""
    ends_q, ends_k, most_q, most_k = sizes
    assert how == {"window_size": (-1, 0), "enable_gqa": True}
    seen = torch.ones(most_q, most_k, dtype=torch.bool).tril(most_k - most_q)
    out = torch.empty_like(queries)
    for (a, b), (c, d) in zip(pairwise(ends_q), pairwise(ends_k), strict=True):
        heads = [part.transpose(0, 1) for part in (queries[a:b], keys[c:d], values[c:d])]
        out[a:b] = scaled_dot_product_attention(*heads, attn_mask=seen, enable_gqa=True).transpose(0, 1)
    return out


def test_prompts_are_compared_with_torchs(
    device: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(card, "DEVICE", device)
    monkeypatch.setattr(card, "finish", lambda: None)
    monkeypatch.setattr(attention, "varlen_attn", by_torch)
    for name, value in {"DTYPE": torch.float16, "SHAPE": (4, 2, 32), "CHUNK": 20, "SEQUENCES": 2}.items():
        monkeypatch.setattr(attention, name, value)
    monkeypatch.setattr(attention, "BEHIND", 35)
    result = Result(tmp_path / "part.json", "kernels", {}, 60)
    attention.measure(result)
    assert result.numbers["prompts_behind_0_as_torchs_varlen"]["ok"]
    assert result.numbers["prompts_behind_35_as_torchs_varlen"]["ok"]
    assert result.numbers["prompts_behind_35_over_torchs_varlen"]["value"] > 0
