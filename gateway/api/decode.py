"""From a request's body to a wire struct: whatever does not fit is a 400 that names the field."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec
from litestar import Request

from gateway.errors import InvalidRequest

T = TypeVar("T")

_AT = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")
_MISSING = re.compile(r"missing required field `(?P<field>[^`]*)`")


async def decode_body(request: Request[Any, Any, Any], decoder: msgspec.json.Decoder[T]) -> T:
    """Raises InvalidRequest. A body without a content type is taken for JSON."""
    content_type = request.headers.get("content-type", "application/json")
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise InvalidRequest("the body must be sent as content-type: application/json", param="content-type")
    body = await request.body()
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise InvalidRequest("the body is not valid JSON", param="body") from None
    except RecursionError:
        raise InvalidRequest("the body is nested too deeply", param="body") from None


def _invalid(message: str) -> InvalidRequest:
    """msgspec says ``what - at `$.messages[0].content` ``; clients look for the path in ``param``."""
    at = _AT.search(message)
    path = at["path"] if at else ""
    if missing := _MISSING.search(message):
        path = f"{path}.{missing['field']}" if path else missing["field"]
    what = _AT.sub("", message)
    return InvalidRequest(f"{path}: {what}" if path else what, param=path or "body")
