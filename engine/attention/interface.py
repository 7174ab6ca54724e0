"""What a decoder asks of the attention of its device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from engine.attention.cpu import KVLayer, attend
from engine.attention.plan import AttentionPlan, AttentionSpec, make_plan


class Plan(Protocol):
    """How the rows of a pass attend: made once, the same for all layers."""

    @property
    def generated(self) -> bool:
        """The rows are tokens of answers, else of prompts."""


class Attention(Protocol):
    """``plan`` is in each case one that it has made."""

    def plan(self, spans: Sequence[tuple[int, int, Sequence[int]]], *, generated: bool) -> Plan:
        """``spans``: per sequence its first position in this pass, its number of rows, its block table."""

    def attend(self, plan: Any, layer: KVLayer, queries: torch.Tensor, spec: AttentionSpec) -> torch.Tensor:
        """queries [rows, heads, head size] → [rows, heads, head size]."""


class CpuAttention:
    """``engine.attention.cpu``, which runs wherever torch does."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def plan(self, spans: Sequence[tuple[int, int, Sequence[int]]], *, generated: bool) -> AttentionPlan:
        return make_plan(spans, self._device, generated=generated)

    attend = staticmethod(attend)


def attention_for(device: torch.device) -> Attention:
    """The CPU's, or Triton's."""
    if device.type != "cuda":
        return CpuAttention(device)
    from engine.attention.triton import TritonAttention

    return TritonAttention(device)
