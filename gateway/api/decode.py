"""From a request's body to a wire struct: whatever does not fit is a 400 that names the field."""

from __future__ import annotations

import codecs
import re
from typing import Any, Final, TypeVar

import msgspec
from litestar import Request

from gateway.errors import InvalidRequest

T = TypeVar("T")

_AT = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")
_KEY: Final = "[...]"
"""msgspec's word for any key of an object."""
_HALF = re.compile(
    rb"""(?<!\\)(?:\\\\)*  # an escape begins, and here:
    (?: \\u[dD][89aAbB][0-9a-fA-F]{2} (?!\\u[dD][c-fC-F])
      | (?<!\\u[dD][89aAbB][0-9a-fA-F]{2}) \\u[dD][c-fC-F] )""",
    re.VERBOSE,
)
"""Of a surrogate pair, which is no character."""
_PAIR: Final = 32
"""Bytes in which one has room, and what is around it."""
_MISSING = re.compile(r"missing required field `(?P<field>[^`]*)`")


async def decode_body(request: Request[Any, Any, Any], decoder: msgspec.json.Decoder[T]) -> T:
    """Raises InvalidRequest. A body without a content type is taken for JSON."""
    content_type = request.headers.get("content-type", "application/json")
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise InvalidRequest("the body must be sent as content-type: application/json", param="content-type")
    if request.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise InvalidRequest("the body must be sent without content-encoding", param="content-encoding")
    body = (await request.body()).removeprefix(codecs.BOM_UTF8)
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(_malformed(str(error), body), param="body") from None
    except RecursionError:
        raise InvalidRequest("the body is nested too deeply", param="body") from None


def _malformed(message: str, body: bytes) -> str:
    """Near the end of a body msgspec does not tell half a pair from a body that is cut off."""
    if "surrogate" in message or ("truncated" in message and _HALF.search(body[-_PAIR:])):
        return "the body is not valid JSON: a string has half of a surrogate pair, which is no character"
    return "the body is not valid JSON"


def _invalid(message: str) -> InvalidRequest:
    """msgspec says ``what - at `$.messages[0].content` ``; clients look for the path in ``param``."""
    at = _AT.search(message)
    path = at["path"].partition(_KEY)[0] if at else ""
    if missing := _MISSING.search(message):
        path = f"{path}.{missing['field']}" if path else missing["field"]
    what = _AT.sub("", message)
    return InvalidRequest(f"{path}: {what}" if path else what, param=path or "body")
