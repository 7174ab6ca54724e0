"""OpenAI's error object: all four keys, always."""

from __future__ import annotations

from msgspec import Struct


class ErrorBody(Struct, frozen=True, kw_only=True):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(Struct, frozen=True):
    error: ErrorBody
