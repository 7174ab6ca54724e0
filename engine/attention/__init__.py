"""Attention over the paged KV cache: one interface, one implementation per kind of device."""

from __future__ import annotations

from engine.attention.cpu import attend, write_kv
from engine.attention.plan import AttentionPlan, AttentionSpec, Span, make_plan

__all__ = ["AttentionPlan", "AttentionSpec", "Span", "attend", "make_plan", "write_kv"]
