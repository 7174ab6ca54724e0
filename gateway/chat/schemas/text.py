"""A schema as the engine gets it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from gateway.chat.schemas.plain import plain
from gateway.chat.schemas.tightening import tightened

_LONGEST: Final = 256 * 1024


def schema_text(schema: Mapping[str, Any], **more: Any) -> str:
    """As JSON, with ``more`` keys. What is too long for any engine stays as it is. Raises SchemaError and
    RecursionError."""
    text = json.dumps({**schema, **more}, ensure_ascii=False)
    if len(text) > _LONGEST:
        return text
    return json.dumps({**tightened(plain(schema)), **more}, ensure_ascii=False)
