"""The API's description of itself: whole, valid, true, and on a page that needs nothing from elsewhere."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import jsonschema_rs
import msgspec
import pytest
import schemathesis
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute
from msgspec import Struct

from gateway.api.openapi import serving
from gateway.api.openapi.described import description_of
from gateway.api.sampling import keep_alive_seconds
from gateway.config import ServerConfig
from gateway.errors import InvalidRequest
from tests.bodies.broken import Sent, any_text, changed_bodies
from tests.bodies.good import CHAT
from tests.bodies.json_text import encode
from tests.gateway.api.conftest import DESK_MODELS, Desk, Gateway, running

UNTOLD = ("/schema", "/dashboard", "/api/events")
"""Where routes begin that are no part of the API; nor is the page itself."""


@pytest.fixture
async def document(gateway: Gateway) -> Any:
    return (await gateway.get("/schema/openapi.json")).json


def handlers(gateway: Gateway) -> Iterator[tuple[str, str, HTTPRouteHandler]]:
    """Path, method and handler of every route of the API."""
    for route in gateway.app.routes:
        if isinstance(route, HTTPRoute) and route.path != "/" and not route.path.startswith(UNTOLD):
            for method, (handler, _) in route.route_handler_map.items():
                if method != "OPTIONS":
                    yield route.path_format, method.lower(), handler


async def test_every_route_is_in_it(gateway: Gateway, document: Any) -> None:
    told = {(path, method) for path, methods in document["paths"].items() for method in methods}
    assert told == {(path, method) for path, method, _ in handlers(gateway)}
    assert ("/v1/chat/completions", "post") in told


async def test_it_is_valid(document: Any) -> None:
    assert document["openapi"].startswith("3.1")
    assert (document["info"]["title"], document["info"]["version"]) == ("Dormouse", version("dormouse"))
    schemathesis.openapi.from_dict(document).validate()
    for schema in document["components"]["schemas"].values():
        jsonschema_rs.meta.validate(schema)
    for reference in re.findall(r'"\$ref": "#/([^"]*)"', json.dumps(document)):
        target = document
        for part in reference.split("/"):
            target = target[part]


async def test_every_operation_says_what_it_does(document: Any) -> None:
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    for operation in operations:
        assert operation["summary"].endswith(".") and "200" in operation["responses"]


async def test_bodies_that_handlers_decode_themselves_are_in_it(gateway: Gateway, document: Any) -> None:
    for path, method, handler in handlers(gateway):
        reads = method == "post" and "request" in handler.parsed_fn_signature.parameters
        assert reads == (description_of(handler).takes is not None), path
        assert reads == ("requestBody" in document["paths"][path][method])


async def test_what_can_go_wrong(document: Any) -> None:
    def failures(path: str, method: str) -> list[str]:
        return [status for status in document["paths"][path][method]["responses"] if status != "200"]

    assert failures(CHAT, "post") == ["400", "401", "403", "404", "413", "429", "503"]
    assert failures("/sleep", "post") == ["400", "401", "403", "404", "503"]
    assert failures("/v1/models/{model}", "get") == ["401", "403", "404"]
    assert failures("/version", "get") == ["403"]
    for status, response in document["components"]["responses"].items():
        assert response["content"] == {
            "application/json": {"schema": {"$ref": "#/components/schemas/ErrorResponse"}}
        }
        assert ("retry-after" in response["headers"]) == (status in ("429", "503"))


async def test_keys(document: Any) -> None:
    assert document["paths"]["/health"]["get"]["security"] == []
    assert document["paths"]["/sleep"]["post"]["security"] == [{"bearer": []}, {"x-api-key": []}]
    assert document["components"]["securitySchemes"].keys() == {"bearer", "x-api-key"}


async def test_parameters(document: Any) -> None:
    parameters = {item["name"]: item for item in document["paths"]["/sleep"]["post"]["parameters"]}
    assert {name: item["schema"] for name, item in parameters.items()} == {
        "model": {"type": "string"},
        "level": {"type": "integer", "enum": [1, 2], "default": 1},
        "mode": {"type": "string", "enum": ["wait", "abort"], "default": "wait"},
    }
    assert not any(item["required"] for item in parameters.values())


async def test_a_stream_is_told_of(document: Any) -> None:
    content = document["paths"][CHAT]["post"]["responses"]["200"]["content"]
    assert content["text/event-stream"]["schema"] == {"$ref": "#/components/schemas/ChatCompletionChunk"}
    assert content["application/json"]["schema"] == {"$ref": "#/components/schemas/ChatCompletion"}


async def test_answers_have_all_their_fields(document: Any) -> None:
    schemas = document["components"]["schemas"]
    assert {"refusal", "role", "content"} <= set(schemas["AnswerMessage"]["required"])
    assert "usage" not in schemas["ChatCompletionChunk"]["required"], "which may be unset"
    assert schemas["EmbeddingRequest"]["required"] == ["model", "input"]


@dataclass(frozen=True)
class Body:
    """Of one route: its schema as it is told, and the type that it is decoded to."""

    validator: jsonschema_rs.Validator
    takes: type[Struct]
    example: Any


@pytest.fixture(scope="module")
def bodies(desk: Desk) -> dict[str, Body]:
    """By route."""
    document = desk.runner.run(desk.gateway.get("/schema/openapi.json")).json
    found = {}
    for path, method, handler in handlers(desk.gateway):
        if takes := description_of(handler).takes:
            told = document["paths"][path][method]["requestBody"]["content"]["application/json"]
            schema = {**told["schema"], "components": document["components"]}
            found[path] = Body(jsonschema_rs.validator_for(schema), takes, told["example"])
    return found


@settings(max_examples=500)
@given(data=st.data(), path=st.sampled_from(sorted(DESK_MODELS)))
def test_it_says_of_bodies_what_the_server_enforces(
    desk: Desk, bodies: dict[str, Body], data: st.DataObject, path: str
) -> None:
    """What it calls good is decoded, though it may ask for what there is not; all else is refused."""
    text = encode(data.draw(changed_bodies(path, DESK_MODELS[path])))
    body = parsed(text)
    assume(same_to_both(body))
    if bodies[path].validator.is_valid(body):
        msgspec.json.decode(text, type=bodies[path].takes)
    else:
        assert desk.send(Sent(path, (text.encode(),), "application/json")).status in (400, 404)


def test_every_body_is_tried(bodies: dict[str, Body]) -> None:
    assert bodies.keys() == DESK_MODELS.keys()


def test_each_body_has_an_example(bodies: dict[str, Body]) -> None:
    for path, body in bodies.items():
        assert body.validator.is_valid(body.example), path


def parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return math.nan


def same_to_both(value: Any) -> bool:
    """Whether JSON schema and the decoder mean the same by it: to the decoder 1.0 is no integer, and some
    numbers and halves of characters are none at all."""
    match value:
        case dict():
            return all(same_to_both(item) for pair in value.items() for item in pair)
        case list():
            return all(map(same_to_both, value))
        case str():
            return not any("\ud800" <= character <= "\udfff" for character in value)
        case float():
            return math.isfinite(value) and not value.is_integer()
        case int():
            return abs(value) < 2**63
    return True


KEEP_ALIVE = r"^(never|-1|[0-9]+(\.[0-9]+)?\s*(ms|s|m|h)?)$"


@given(text=st.from_regex(KEEP_ALIVE, fullmatch=True) | any_text)
def test_the_pattern_of_keep_alive_is_what_the_server_enforces(desk: Desk, text: str) -> None:
    matches = re.fullmatch(KEEP_ALIVE, text, re.ASCII) is not None
    try:
        keep_alive_seconds(text)
    except InvalidRequest:
        assert not matches
    else:
        assert matches


async def test_the_pattern_of_keep_alive_is_in_it(document: Any) -> None:
    keep_alive = document["components"]["schemas"]["EmbeddingRequest"]["properties"]["keep_alive"]
    assert {"type": "string", "pattern": KEEP_ALIVE} in keep_alive["anyOf"]


async def test_it_is_open_but_not_to_foreign_hosts() -> None:
    async with running(ServerConfig(api_keys=("sesame",))) as gateway:
        for path in ("/schema", "/schema/openapi.json"):
            assert (await gateway.get(path)).status == 200
    async with running() as gateway:
        reply = await gateway.get("/schema", headers={"host": "evil.example"})
        assert reply.status == 403 and reply.error


@pytest.mark.parametrize("path", ["/schema/swagger", "/schema/openapi.yaml", "/schema/a/b"])
async def test_there_is_no_more(gateway: Gateway, path: str) -> None:
    reply = await gateway.get(path)
    assert (reply.status, reply.error["code"]) == (404, "not_found")


async def test_it_is_made_once_and_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    describe = serving.describe

    def counting(app: Litestar, by_litestar: dict[str, Any]) -> dict[str, Any]:
        made.append("document")
        return describe(app, by_litestar)

    monkeypatch.setattr(serving, "describe", counting)
    async with running() as gateway:
        await gateway.chat()
        assert not made
        first = await gateway.get("/schema/openapi.json")
        assert (await gateway.get("/schema/openapi.json")).body == first.body
        assert len(made) == 1


async def test_the_page_shows_every_route_and_type_and_loads_nothing(gateway: Gateway, document: Any) -> None:
    reply = await gateway.get("/schema")
    page = reply.body.decode()
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert reply.headers["content-security-policy"] == "default-src 'none'; style-src 'unsafe-inline'"
    anchors = set(re.findall(r'id="([^"]+)"', page))
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    assert anchors == {op["operationId"] for op in operations} | document["components"]["schemas"].keys()
    links = set(re.findall(r'href="([^"]+)"', page))
    assert links - {f"#{anchor}" for anchor in anchors} == {"/schema/openapi.json"}
    assert not re.search(r"<script|<link|<img|<iframe|src=|url\(|https?:", page)
    for text in ("/v1/models/{model}", "Put a model to sleep", "≤ 20", "json_schema"):
        assert text in page
