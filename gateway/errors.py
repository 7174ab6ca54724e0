"""Every error that a client can see, one class a row of the interface's table.

The fleet and the handlers raise these; ``api`` turns them into OpenAI's error object. Messages never name
paths of the server.
"""

from __future__ import annotations

from typing import ClassVar


class ApiError(Exception):
    """An error with its HTTP status and OpenAI's ``type`` and ``code``."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: str | None = "internal_error"
    param: str | None = None
    retry_after: float | None = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param or type(self).param
        self.code = code or type(self).code
        self.retry_after = retry_after


class InvalidRequest(ApiError):
    status = 400
    type = "invalid_request_error"
    code = None


class InvalidApiKey(ApiError):
    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class Forbidden(ApiError):
    status = 403
    type = "permission_error"
    code = "forbidden"


class NotFound(ApiError):
    status = 404
    type = "invalid_request_error"
    code = "not_found"


class ModelNotFound(NotFound):
    code = "model_not_found"
    param = "model"

    def __init__(self, message: str, *, name: str) -> None:
        super().__init__(message)
        self.name = name
        """That was asked for."""


class MethodNotAllowed(ApiError):
    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"


class FilesRefused(ApiError):
    """A model's files are others than it can adopt; it goes on with what it has."""

    status = 409
    type = "invalid_request_error"
    code = "files_refused"


class BodyTooLarge(ApiError):
    status = 413
    type = "invalid_request_error"
    code = "body_too_large"


class QueueFull(ApiError):
    status = 429
    type = "rate_limit_error"
    code = "queue_full"


class WaitTimeout(ApiError):
    status = 503
    code = "wait_timeout"


class ModelWakeFailed(ApiError):
    status = 503
    code = "model_wake_failed"


class ModelAsleep(ApiError):
    """Put to sleep by force while it answered; asked again, it wakes."""

    status = 503
    code = "model_asleep"


class ModelReplaced(ApiError):
    """Its configuration wants another engine than the request was prepared for; prepared again, it is
    served."""

    status = 503
    code = "model_replaced"


class ShuttingDown(ApiError):
    status = 503
    code = "shutting_down"


class NotReady(ApiError):
    status = 503
    code = "not_ready"


class Unhealthy(ApiError):
    status = 503
    code = "unhealthy"
