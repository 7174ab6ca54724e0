"""From each way of asking for a form to the engine's constraint; what cannot be wakes nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine import Constraint
from gateway.chat.schemas.text import schema_text
from tests.fake_engine import FakeGrammar
from tests.gateway.api.caller import Reply, chat_body
from tests.gateway.api.conftest import Gateway

SCHEMA = {"type": "object", "properties": {"b": {"type": "integer"}, "a": {}}, "required": ["b"]}
AS_TEXT = json.dumps(SCHEMA)


def json_schema(schema: Any = SCHEMA, **fields: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema, **fields}}


async def ask(gateway: Gateway, route: str, **fields: Any) -> Reply:
    if route == "chat":
        return await gateway.post("/v1/chat/completions", chat_body(**fields))
    return await gateway.post("/v1/completions", {"model": "alpha", "prompt": "hello", **fields})


ROUTES = pytest.mark.parametrize("route", ["chat", "text"])


@ROUTES
@pytest.mark.parametrize(
    ("fields", "constraint"),
    [
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": None, "guided_json": None, "structured_outputs": {"regex": None}}, None),
        ({"response_format": {"type": "json_object"}}, Constraint(kind="json")),
        ({"response_format": json_schema()}, Constraint(kind="json_schema", value=AS_TEXT)),
        ({"guided_json": SCHEMA}, Constraint(kind="json_schema", value=AS_TEXT)),
        ({"guided_json": AS_TEXT}, Constraint(kind="json_schema", value=AS_TEXT)),
        ({"guided_regex": "a+"}, Constraint(kind="regex", value="a+")),
        ({"guided_grammar": "start: /a/"}, Constraint(kind="grammar", value="start: /a/")),
        ({"guided_choice": ["a", "b"]}, Constraint(kind="choice", value=("a", "b"))),
        ({"structured_outputs": {"json": SCHEMA}}, Constraint(kind="json_schema", value=AS_TEXT)),
        ({"structured_outputs": {"json_object": True}}, Constraint(kind="json")),
        ({"structured_outputs": {"json_object": False}}, None),
        ({"structured_outputs": {"regex": "a+"}}, Constraint(kind="regex", value="a+")),
        ({"structured_outputs": {"grammar": "start: /a/"}}, Constraint(kind="grammar", value="start: /a/")),
        ({"structured_outputs": {"choice": ["a"]}}, Constraint(kind="choice", value=("a",))),
    ],
)
async def test_each_way_to_ask(
    gateway: Gateway, route: str, fields: dict[str, Any], constraint: Constraint | None
) -> None:
    assert (await ask(gateway, route, **fields)).status == 200
    grammar = gateway.alpha.requests[0].sampling.grammar
    if constraint is None:
        assert grammar is None
    else:
        assert isinstance(grammar, FakeGrammar)
        found = grammar.constraint
        assert found.kind == constraint.kind
        if constraint.kind == "json_schema":
            assert isinstance(found.value, str)
            assert list(json.loads(found.value)["properties"]) == ["b", "a"], "the order is the answer's"
            assert found.value == schema_text(SCHEMA)
        else:
            assert found.value == constraint.value


@ROUTES
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {}}, "response_format.type"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
            "response_format.json_schema.schema",
        ),
        ({"response_format": json_schema("x")}, "response_format.json_schema.schema"),
        ({"response_format": json_schema({"not": {"pattern": "a"}})}, "response_format"),
        ({"guided_json": {"uniqueItems": True}}, "guided_json"),
        ({"structured_outputs": {"json": {"type": "king"}}}, "structured_outputs.json"),
        ({"guided_json": "{"}, "guided_json"),
        ({"guided_json": 3}, "guided_json"),
        ({"guided_regex": "("}, "guided_regex"),
        ({"guided_regex": 3}, "guided_regex"),
        ({"guided_grammar": "("}, "guided_grammar"),
        ({"guided_choice": []}, "guided_choice"),
        ({"guided_choice": [1]}, "guided_choice[0]"),
        ({"structured_outputs": {"json": "{"}}, "structured_outputs.json"),
        ({"structured_outputs": {"regex": "("}}, "structured_outputs.regex"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs.choice"),
        ({"guided_regex": "a", "response_format": {"type": "json_object"}}, "guided_regex"),
        ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "structured_outputs.choice"),
    ],
)
async def test_what_cannot_be_is_named_and_wakes_nothing(
    gateway: Gateway, route: str, stream: bool, fields: dict[str, Any], param: str
) -> None:
    reply = await ask(gateway, route, stream=stream, **fields)
    assert reply.status == 400
    assert reply.error["param"] == param
    assert gateway.is_cold()


async def test_what_a_schema_cannot_have_is_told_by_its_place(gateway: Gateway) -> None:
    schema = {"properties": {"a": {"items": {"$ref": "#/$defs/b"}}}, "$defs": {"b": {"uniqueItems": True}}}
    reply = await ask(gateway, "chat", response_format=json_schema(schema))
    assert reply.error["message"] == (
        "response_format: uniqueItems cannot be enforced unless the items are of few values, "
        "at #/$defs/b/uniqueItems"
    )
