"""The OpenAPI document: routes and parameters as Litestar sees them, types by msgspec, failures by rule.

Litestar's own view of the types loses constraints, and it cannot see the bodies that handlers decode
themselves; so of its document only routes and parameters are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute

from gateway.api.keys import access_of
from gateway.api.openapi.described import Described, description_of
from gateway.api.openapi.schemas import Schema, Schemas
from gateway.api.schema.errors import ErrorResponse

_JSON: Final = "application/json"
_REQUEST_ID: Final = {"x-request-id": {"$ref": "#/components/headers/x-request-id"}}

_HEADERS: Final = {
    "x-request-id": {
        "description": "The one that was sent, or a new one.",
        "required": True,
        "schema": {"type": "string"},
    },
    "server-timing": {
        "description": "How long the request was queued, waited for a wake and prefilled, in milliseconds.",
        "schema": {"type": "string"},
    },
    "retry-after": {
        "description": "In how many seconds it is worth trying again.",
        "schema": {"type": "integer", "minimum": 1},
    },
}

_FAILURES: Final = {
    400: "The body or a parameter is wrong; `param` names it.",
    401: "There is no valid key.",
    403: "The request comes from a foreign origin, or calls the server by a foreign name.",
    404: "There is no such model.",
    409: "The model's files are others than it can adopt; it goes on with what it has.",
    413: "The body is too large.",
    429: "The queue is full.",
    503: "Not now; `code` tells why.",
}

_SECURITY_SCHEMES: Final = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}


@dataclass(frozen=True, slots=True)
class _Operation:
    path: str
    method: str
    handler: HTTPRouteHandler

    @property
    def described(self) -> Described:
        return description_of(self.handler)

    @property
    def needs_key(self) -> bool:
        return access_of(self.handler) != "open"

    @property
    def answers(self) -> Any:
        """The type."""
        return self.described.answers or self.handler.parsed_fn_signature.return_type.annotation


def describe(app: Litestar, by_litestar: dict[str, Any]) -> dict[str, Any]:
    operations = list(_operations(app))
    schemas = Schemas(
        [operation.described.takes for operation in operations if operation.described.takes],
        [ErrorResponse, *_sent(operations)],
    )
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        seen = by_litestar["paths"][operation.path][operation.method]
        paths.setdefault(operation.path, {})[operation.method] = _describe(operation, seen, schemas)
    return {
        "openapi": by_litestar["openapi"],
        "info": by_litestar["info"],
        "servers": by_litestar["servers"],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "responses": {str(status): _failure(status, schemas) for status in _FAILURES},
            "headers": _HEADERS,
            "securitySchemes": _SECURITY_SCHEMES,
        },
    }


def _operations(app: Litestar) -> Iterator[_Operation]:
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            for method, (handler, _) in route.route_handler_map.items():
                if handler.resolve_include_in_schema():
                    yield _Operation(route.path_format, method.lower(), handler)


def _sent(operations: list[_Operation]) -> Iterator[Any]:
    for operation in operations:
        yield operation.answers
        if operation.described.streams:
            yield operation.described.streams


def _describe(operation: _Operation, seen: dict[str, Any], schemas: Schemas) -> dict[str, Any]:
    summary, _, more = seen.get("description", "").partition("\n\n")
    parameters = [_parameter(parameter) for parameter in seen.get("parameters", [])]
    told: dict[str, Any] = {"operationId": seen["operationId"], "summary": summary}
    if more:
        told["description"] = more
    if parameters:
        told["parameters"] = parameters
    if operation.described.takes:
        told["requestBody"] = {"required": True, "content": {_JSON: _body(operation.described, schemas)}}
    failures = sorted(_failures(operation, parameters))
    told["responses"] = {
        "200": _success(operation, schemas),
        **{str(status): {"$ref": f"#/components/responses/{status}"} for status in failures},
    }
    told["security"] = [{name: []} for name in _SECURITY_SCHEMES] if operation.needs_key else []
    return told


def _parameter(seen: dict[str, Any]) -> dict[str, Any]:
    """Nothing in an address is null, and a name of a model is no URI."""
    schema = seen["schema"]
    if seen["in"] == "path":
        schema = {"type": "string"}
    elif "oneOf" in schema:
        [schema] = [option for option in schema["oneOf"] if option != {"type": "null"}]
    return {**{key: seen[key] for key in ("name", "in", "required")}, "schema": schema}


def _body(described: Described, schemas: Schemas) -> Schema:
    body: Schema = {"schema": schemas[described.takes]}
    return body if described.example is None else {**body, "example": described.example}


def _success(operation: _Operation, schemas: Schemas) -> dict[str, Any]:
    media_type = "text/plain" if operation.answers is str else _JSON
    content = {media_type: {"schema": schemas[operation.answers]}}
    headers: dict[str, Any] = {**_REQUEST_ID}
    description = "The answer."
    if streams := operation.described.streams:
        content["text/event-stream"] = {"schema": schemas[streams]}
        description = "The answer; with `stream` the data of each event, and `[DONE]` at the end."
    if operation.described.answers:
        headers["server-timing"] = {"$ref": "#/components/headers/server-timing"}
    return {"description": description, "headers": headers, "content": content}


def _failures(operation: _Operation, parameters: list[dict[str, Any]]) -> set[int]:
    """The status codes of what can go wrong."""
    failures = {403, *operation.described.fails}
    names = {parameter["name"] for parameter in parameters}
    if operation.needs_key:
        failures.add(401)
    if any(parameter["in"] == "query" for parameter in parameters):
        failures.add(400)
    if takes := operation.described.takes:
        failures |= {400, 413}
        names |= set(takes.__struct_encode_fields__)
    if "model" in names:
        failures.add(404)
    return failures


def _failure(status: int, schemas: Schemas) -> dict[str, Any]:
    headers: dict[str, Any] = {**_REQUEST_ID}
    if status in (429, 503):
        headers["retry-after"] = {"$ref": "#/components/headers/retry-after"}
    return {
        "description": _FAILURES[status],
        "headers": headers,
        "content": {_JSON: {"schema": schemas[ErrorResponse]}},
    }
