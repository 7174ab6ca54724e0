"""What may be asked about: texts or token ids.

What ``extra_json_schema`` says is left to the handlers, who name the whole field when they refuse it.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from msgspec import Meta

_ONE_KIND: Final[dict[str, Any]] = {
    "anyOf": [{"items": {"type": kind}} for kind in ("string", "integer", "array")]
}

Truncation = Annotated[int, Meta(ge=-1, extra_json_schema={"not": {"const": 0}})]
"""Most tokens of a prompt: more are cut off; -1: as many as the model takes."""

Text = Annotated[str, Meta(extra_json_schema={"minLength": 1})]
TokenId = Annotated[int, Meta(extra_json_schema={"minimum": 0})]
TokenIds = Annotated[list[TokenId], Meta(extra_json_schema={"minItems": 1})]
Prompts = Text | Annotated[list[Text | TokenId | TokenIds], Meta(min_length=1, extra_json_schema=_ONE_KIND)]
"""One text, one list of token ids, or a list of either."""
