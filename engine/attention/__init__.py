"""Attention over the paged KV cache: one interface, one implementation per kind of device."""

from __future__ import annotations

from engine.attention.cpu import attend, write_kv
from engine.attention.interface import Attention, Plan, attention_for
from engine.attention.plan import AttentionPlan, AttentionSpec, Span, make_plan

__all__ = [
    "Attention",
    "AttentionPlan",
    "AttentionSpec",
    "Plan",
    "Span",
    "attend",
    "attention_for",
    "make_plan",
    "write_kv",
]
