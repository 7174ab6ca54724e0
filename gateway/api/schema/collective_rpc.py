"""A call to all workers of a model, of which there is one: vLLM's request and answer."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct


class RpcRequest(Struct, frozen=True, kw_only=True):
    method: str
    model: str | None = None
    """None: every model."""
    args: list[Any] | None = None
    kwargs: dict[str, Any] | None = None
    timeout: Annotated[float, Meta(gt=0)] | None = None
    """Seconds."""


class RpcResponse(Struct, frozen=True, kw_only=True):
    results: list[None]
    """What each worker returns."""
