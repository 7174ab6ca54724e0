"""The answers of vLLM's sleep routes."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from engine import Level, Tag


class SleepResponse(Struct, frozen=True, kw_only=True):
    status: Literal["sleeping"] = "sleeping"
    level: Level


class WakeResponse(Struct, frozen=True, kw_only=True):
    status: Literal["awake", "sleeping"]
    tags: list[Tag] | None


class SleepingResponse(Struct, frozen=True, kw_only=True):
    is_sleeping: bool
