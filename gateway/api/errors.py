"""Every failure as OpenAI's error object, with nothing of the server's inside in it."""

from __future__ import annotations

import logging
import math
from typing import Any, Final

import msgspec
from litestar import Request, Response
from litestar.enums import ParamType
from litestar.exceptions import (
    HTTPException,
    InternalServerException,
    MethodNotAllowedException,
    NotFoundException,
    ValidationException,
)
from litestar.exceptions.http_exceptions import RequestEntityTooLarge

from engine import EngineError, RequestError
from gateway.api.record import record_of
from gateway.api.schema.errors import ErrorBody, ErrorResponse
from gateway.errors import (
    ApiError,
    BodyTooLarge,
    InvalidRequest,
    MethodNotAllowed,
    ModelNotFound,
    NotFound,
)
from gateway.printable import printable

logger = logging.getLogger("dormouse.api")

_LONGEST: Final = 4000
"""Characters of a message, which may name what a client has sent."""

_READ: Final = ("content-length", "host")
"""Headers that Litestar reads itself."""


def as_api_error(error: Exception) -> ApiError:
    """What a client is told of ``error``. What it is not told is logged."""
    match error:
        case ApiError():
            return error
        case RequestError():
            return InvalidRequest(str(error), param=error.param, code=error.code)
        case EngineError():
            logger.error("the engine failed: %s", error)
            return ApiError("the model failed while it was answering", code="engine_error")
        case HTTPException():
            return _from_litestar(error)
        case RecursionError():  # nothing here is deep but what a client makes so
            return InvalidRequest("the body is nested too deeply", param="body")
    logger.error("a request failed unexpectedly", exc_info=error)
    return ApiError("the server failed to handle this request")


def error_json(error: ApiError) -> bytes:
    message = error.message[:_LONGEST]
    body = ErrorBody(message=message, type=error.type, param=error.param, code=error.code)
    return msgspec.json.encode(ErrorResponse(body))


def error_headers(error: ApiError) -> dict[str, str]:
    if error.retry_after is None:
        return {}
    return {"retry-after": str(max(1, math.ceil(error.retry_after)))}


def handle_exception(request: Request[Any, Any, Any], exception: Exception) -> Response[bytes]:
    """Litestar's handler for whatever a route or the routing raises."""
    error = as_api_error(exception)
    if isinstance(error, ModelNotFound):
        record_of(request.scope).fields["asked_for"] = printable(error.name)
    allowed = exception.headers if isinstance(exception, MethodNotAllowedException) else None
    return Response(
        error_json(error),
        status_code=error.status,
        headers={**error_headers(error), **(allowed or {})},
        media_type="application/json",
    )


def _from_litestar(error: HTTPException) -> ApiError:
    match error:
        case NotFoundException():
            return NotFound("there is no such route")
        case MethodNotAllowedException():
            return MethodNotAllowed("this route does not answer to this method")
        case RequestEntityTooLarge():
            return BodyTooLarge("the body is larger than this server accepts")
        case ValidationException():
            return _invalid_parameter(error)
        case InternalServerException():
            # Litestar's word for a client that left while its body was being read: nobody hears this answer.
            return ApiError(error.detail)
    if error.status_code < 500:  # what is left are headers that it cannot read
        return InvalidRequest(error.detail, param=next((n for n in _READ if n in error.detail.lower()), None))
    logger.error("a request failed unexpectedly", exc_info=error)
    return ApiError("the server failed to handle this request")


def _invalid_parameter(error: ValidationException) -> InvalidRequest:
    """Litestar lists the faults as ``{"message", "key", "source"}``; the first will do."""
    faults = error.extra if isinstance(error.extra, list) else []
    if not faults:
        return InvalidRequest(error.detail)
    fault = faults[0]
    param = f"{ParamType(fault['source']).value}.{fault['key']}"
    return InvalidRequest(f"{param}: {fault['message']}", param=param)
