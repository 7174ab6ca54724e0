"""The answer of ``POST /reset_prefix_cache``."""

from __future__ import annotations

from msgspec import Struct


class ResetResponse(Struct, frozen=True, kw_only=True):
    success: bool = True
