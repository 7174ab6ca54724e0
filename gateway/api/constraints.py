"""From the fields that ask for a form to one constraint, compiled for the model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec

from engine import Constraint, ConstraintKind, Engine, Grammar, RequestError
from gateway.api.schema.constraints import JsonSchema
from gateway.api.schema.generation import GenerationRequest
from gateway.chat.schemas.schema import SchemaError
from gateway.chat.schemas.text import schema_text
from gateway.errors import InvalidRequest

Asked = tuple[str, Constraint]
"""The field that asks, and what it asks for."""


_Making = tuple[str, Callable[[], Constraint]]
"""The same, to be made: of a large schema that takes its time."""


async def compile_constraint(asked: Asked | None, engine: Engine) -> Grammar | None:
    """Off the loop. Raises InvalidRequest, which names the field, for what the engine cannot enforce."""
    if asked is None:
        return None
    param, constraint = asked
    try:
        return await asyncio.to_thread(engine.compile, constraint)
    except RequestError as error:
        raise InvalidRequest(f"{param}: {error}", param=param) from None


def check_constraint(request: GenerationRequest) -> None:
    """Raises InvalidRequest when several fields ask."""
    _asking(request)


def asked_constraint(request: GenerationRequest) -> Asked | None:
    """Blocking. Raises InvalidRequest."""
    asking = _asking(request)
    if asking is None:
        return None
    param, make = asking
    try:
        return param, make()
    except SchemaError as error:
        raise InvalidRequest(f"{param}: {error}", param=param) from None
    except RecursionError:
        raise InvalidRequest(f"{param}: the schema is nested too deeply", param=param) from None


def _asking(request: GenerationRequest) -> _Making | None:
    asked = [*_response_format(request), *_structured_outputs(request), *_guided(request)]
    if len(asked) > 1:
        (first, _), (second, _), *_ = asked
        raise InvalidRequest(f"{first} and {second} exclude each other", param=second)
    return asked[0] if asked else None


def _response_format(request: GenerationRequest) -> Iterator[_Making]:
    wanted = request.response_format
    if wanted is None or wanted.type == "text":
        return
    if wanted.type == "json_object":
        yield "response_format", partial(Constraint, kind="json")
    elif wanted.json_schema is None:
        raise InvalidRequest("response_format has no json_schema", param="response_format.json_schema")
    else:
        yield "response_format", partial(_json_schema, wanted.json_schema.schema_)


def _structured_outputs(request: GenerationRequest) -> Iterator[_Making]:
    wanted = request.structured_outputs
    if wanted is None:
        return
    if wanted.structural_tag is not None:
        param = "structured_outputs.structural_tag"
        raise InvalidRequest(f"{param} is not supported yet", param=param)
    if wanted.json_object:
        yield "structured_outputs.json_object", partial(Constraint, kind="json")
    yield from _each("structured_outputs.", wanted.json, wanted.regex, wanted.grammar, wanted.choice)


def _guided(request: GenerationRequest) -> Iterator[_Making]:
    yield from _each(
        "guided_", request.guided_json, request.guided_regex, request.guided_grammar, request.guided_choice
    )


def _each(
    prefix: str, json: JsonSchema | None, regex: str | None, grammar: str | None, choice: list[str] | None
) -> Iterator[_Making]:
    if json is not None:
        yield f"{prefix}json", partial(_json_schema, json)
    texts: dict[ConstraintKind, str | None] = {"regex": regex, "grammar": grammar}
    for kind, text in texts.items():
        if text is not None:
            yield f"{prefix}{kind}", partial(Constraint, kind=kind, value=text)
    if choice is not None:
        yield f"{prefix}choice", partial(Constraint, kind="choice", value=tuple(choice))


def _json_schema(schema: JsonSchema) -> Constraint:
    if isinstance(schema, str):
        try:
            schema = msgspec.json.decode(schema, type=dict[str, Any])
        except msgspec.DecodeError:
            return Constraint(kind="json_schema", value=str(schema))  # which the engine will refuse
    return Constraint(kind="json_schema", value=schema_text(schema))
