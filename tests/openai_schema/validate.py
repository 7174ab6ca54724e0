"""Is this what OpenAI's schema says?"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from functools import cache
from itertools import islice
from typing import Any, Final

from jsonschema_rs import Draft202012Validator, ValidationError, ValidationErrorKind

from tests.openai_schema.extract import SCHEMA_FILE
from tests.openai_schema.leeway import Leeway, leeways

_WHOLE: Final = {
    "/v1/chat/completions": "CreateChatCompletionResponse",
    "/v1/completions": "CreateCompletionResponse",
    "/v1/embeddings": "CreateEmbeddingResponse",
    "/v1/models": "ListModelsResponse",
}
_CHUNK: Final = {
    "/v1/chat/completions": "CreateChatCompletionStreamResponse",
    "/v1/completions": "CreateCompletionResponse",
}


class Violation(BaseException):
    """An answer that the schema forbids. Not an ``Exception``, so that no client and no server takes it for a
    failing connection and goes on."""


def check_response(path: str, body: Any, asked: Mapping[str, Any] | None = None) -> None:
    """A whole answer to the request ``asked``."""
    name = "Model" if path.startswith("/v1/models/") else _WHOLE.get(path)
    _check(path, name, body, leeways(asked or {}, streamed=False))


def check_chunk(path: str, event: Any, asked: Mapping[str, Any] | None = None) -> None:
    """One event of a stream: of the answer, or the error that ends it."""
    if isinstance(event, dict) and "error" in event:
        check_error(event)
    else:
        _check(path, _CHUNK.get(path), event, leeways(asked or {}, streamed=True))


def check_error(body: Any) -> None:
    _check("an error", "ErrorResponse", body, ())


def _check(what: str, name: str | None, value: Any, leeway: Iterable[Leeway]) -> None:
    if name is None:
        raise Violation(f"{what}: the schema knows no such answer")
    validator = _validator(name, tuple(leeway))
    if not validator.is_valid(value):
        faults = [fault for error in validator.iter_errors(value) for fault in _faults(error)]
        listed = "\n".join(islice(faults, 5))
        raise Violation(f"{what} is no {name}:\n{listed}\nin {_short(value, 1000)}")


@cache
def _validator(name: str, leeway: tuple[Leeway, ...]) -> Draft202012Validator:
    definitions = deepcopy(_definitions())
    for loosen in leeway:
        loosen(definitions)
    return Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": definitions})


@cache
def _definitions() -> dict[str, Any]:
    definitions: dict[str, Any] = json.loads(SCHEMA_FILE.read_text())["$defs"]
    return definitions


def _faults(error: ValidationError) -> Iterator[str]:
    """A line each; of "this or null" what is wrong with this."""
    if isinstance(error.kind, ValidationErrorKind.AnyOf):
        branches = [branch for branch in error.kind.context if not _is_of_other_type(branch, error)]
        if len(branches) == 1:
            for inner in branches[0]:
                yield from _faults(inner)
            return
    yield f"  {'.'.join(map(str, error.instance_path)) or 'it'}: {_short(error.message, 200)}"


def _is_of_other_type(branch: list[ValidationError], error: ValidationError) -> bool:
    return any(
        isinstance(inner.kind, ValidationErrorKind.Type) and inner.instance_path == error.instance_path
        for inner in branch
    )


def _short(value: Any, length: int) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= length else text[:length] + " ..."
