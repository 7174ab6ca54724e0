"""From the fields that ask for a form to one constraint, compiled for the model."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import msgspec

from engine import Constraint, ConstraintKind, Engine, Grammar, RequestError
from gateway.api.schema.constraints import JsonSchema
from gateway.api.schema.generation import GenerationRequest
from gateway.errors import InvalidRequest


async def compile_constraint(request: GenerationRequest, engine: Engine) -> Grammar | None:
    """Off the loop. Raises InvalidRequest, which names the field, for what the engine cannot enforce."""
    asked = asked_constraint(request)
    if asked is None:
        return None
    param, constraint = asked
    try:
        return await asyncio.to_thread(engine.compile, constraint)
    except RequestError as error:
        raise InvalidRequest(f"{param}: {error}", param=param) from None


def asked_constraint(request: GenerationRequest) -> tuple[str, Constraint] | None:
    """The field and what it asks for. Raises InvalidRequest when there are several."""
    asked = [*_response_format(request), *_structured_outputs(request), *_guided(request)]
    if len(asked) > 1:
        (first, _), (second, _), *_ = asked
        raise InvalidRequest(f"{first} and {second} exclude each other", param=second)
    return asked[0] if asked else None


_Asked = Iterator[tuple[str, Constraint]]


def _response_format(request: GenerationRequest) -> _Asked:
    wanted = request.response_format
    if wanted is None or wanted.type == "text":
        return
    if wanted.type == "json_object":
        yield "response_format", Constraint(kind="json")
    elif wanted.json_schema is None:
        raise InvalidRequest("response_format has no json_schema", param="response_format.json_schema")
    else:
        yield "response_format", _json_schema(wanted.json_schema.schema_)


def _structured_outputs(request: GenerationRequest) -> _Asked:
    wanted = request.structured_outputs
    if wanted is None:
        return
    if wanted.structural_tag is not None:
        param = "structured_outputs.structural_tag"
        raise InvalidRequest(f"{param} is not supported yet", param=param)
    if wanted.json_object:
        yield "structured_outputs.json_object", Constraint(kind="json")
    yield from _each("structured_outputs.", wanted.json, wanted.regex, wanted.grammar, wanted.choice)


def _guided(request: GenerationRequest) -> _Asked:
    yield from _each(
        "guided_", request.guided_json, request.guided_regex, request.guided_grammar, request.guided_choice
    )


def _each(
    prefix: str, json: JsonSchema | None, regex: str | None, grammar: str | None, choice: list[str] | None
) -> _Asked:
    if json is not None:
        yield f"{prefix}json", _json_schema(json)
    texts: dict[ConstraintKind, str | None] = {"regex": regex, "grammar": grammar}
    for kind, text in texts.items():
        if text is not None:
            yield f"{prefix}{kind}", Constraint(kind=kind, value=text)
    if choice is not None:
        yield f"{prefix}choice", Constraint(kind="choice", value=tuple(choice))


def _json_schema(schema: JsonSchema) -> Constraint:
    text = schema if isinstance(schema, str) else msgspec.json.encode(schema).decode()
    return Constraint(kind="json_schema", value=text)
