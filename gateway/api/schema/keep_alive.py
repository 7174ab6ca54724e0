"""How long a model stays awake after a request."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

_DURATION = Annotated[
    str, Meta(extra_json_schema={"pattern": r"^(never|-1|[0-9]+(\.[0-9]+)?\s*(ms|s|m|h)?)$"})
]
KeepAlive = float | _DURATION
"""Idle timeout until the next request: seconds or a duration; negative: never."""
