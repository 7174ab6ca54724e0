"""The real server, asked for whatever its own description allows and forbids, and sent bodies gone wrong.

Its models fall asleep all the time.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.core.deserialization import DeserializationContext
from schemathesis.core.transport import Response
from schemathesis.generation import GenerationMode
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.bodies import CHAT, COMPLETIONS, EMBEDDINGS, Sent, requests
from tests.e2e.server import Server, running
from tests.engine.encoders import minilm
from tests.gateway.api.conftest import build

CONFIG = """
api_keys = ["sesame"]
[sleep]
idle_timeout = "50ms"
deepen_after = "100ms"
[models.talker]
path = "{talker}"
max_model_len = 40
[models.embedder]
path = "{embedder}"
"""
KEY = {"authorization": "Bearer sesame"}

NOT_CHECKED = [
    # What fits its type may ask for what there is not: a longer context, other tokens, a broken expression.
    positive_data_acceptance,
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, checkpoints: dict[str, Path]) -> Iterator[Server]:
    config = CONFIG.format(talker=checkpoints["tiny-a"], embedder=minilm())
    with running(tmp_path_factory.mktemp("fuzz"), config) as server:
        server.http.headers.update(KEY)
        yield server
        server.wait_until(lambda: nothing_left(server), "requests are left behind")
    log = server.log.read_text()
    assert "Traceback" not in log and "ERROR" not in log, log


def nothing_left(server: Server) -> bool:
    models = server.http.get("/api/status").json()["models"]
    return not any(model["in_flight"] or model["queued"] for model in models)


def description() -> Any:
    """The API's own, with models that there are."""
    document = asyncio.run(build().get("/schema/openapi.json")).json
    for name, schema in document["components"]["schemas"].items():
        if name.endswith("Request"):
            schema["properties"]["model"] = {"enum": [model_for(name)]}
    for operation in (operation for path in document["paths"].values() for operation in path.values()):
        for parameter in operation.get("parameters", []):
            if parameter["name"] == "model":
                parameter["schema"] = {"enum": ["talker", "embedder"]}
        for body in operation.get("requestBody", {}).get("content", {}).values():
            body["example"]["model"] = model_for(body["schema"]["$ref"])
    return document


def model_for(request: str) -> str:
    return "embedder" if "Embedding" in request else "talker"


@schemathesis.deserializer("text/event-stream")
def events(_: DeserializationContext, response: Response) -> list[Any]:
    """The data of each event is what the description is about."""
    lines = response.content.decode().splitlines()
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    return [json.loads(item) for item in data if item != "[DONE]"]


def api(*coverage: GenerationMode) -> BaseSchema:
    """``coverage``: whether bodies keep to each single constraint of the description, or break it."""
    schema = schemathesis.openapi.from_dict(description())
    schema.config.phases.coverage.generation.modes = list(coverage)
    return schema


answered: defaultdict[str, Counter[int]] = defaultdict(Counter)
"""By operation, how often it was answered with which status code."""


def check(case: schemathesis.Case, server: Server) -> None:
    """Of every tenth case the models know nothing: they sleep, lightly or deeply."""
    count = sum(map(Counter.total, answered.values()))
    if count % 10 == 0:
        server.http.post(f"/sleep?level={1 + count // 10 % 2}")
    response = case.call(base_url=server.url, headers=KEY)
    case.validate_response(response, headers=KEY, excluded_checks=NOT_CHECKED)
    answered[case.operation.label][response.status_code] += 1


@api(GenerationMode.POSITIVE).parametrize()
@settings(max_examples=10, suppress_health_check=list(HealthCheck))
def test_it_does_what_it_says(case: schemathesis.Case, server: Server) -> None:
    check(case, server)


@pytest.mark.soak
@api(GenerationMode.POSITIVE, GenerationMode.NEGATIVE).parametrize()
@settings(max_examples=400, suppress_health_check=list(HealthCheck))
def test_it_does_what_it_says_for_long(case: schemathesis.Case, server: Server) -> None:
    check(case, server)


def test_all_was_tried(server: Server) -> None:
    if not answered:
        pytest.skip("nothing was asked")
    for label, statuses in answered.items():
        assert statuses[200], label
    assert server.log.read_text().count("asleep -> waking") > 5


MODELS = {CHAT: "talker", COMPLETIONS: "talker", EMBEDDINGS: "embedder"}


def send(server: Server, sent: Sent) -> None:
    headers = {"content-type": sent.content_type} if sent.content_type else {}
    response = server.http.post(sent.path, content=iter(sent.chunks), headers=headers)
    assert response.status_code in (200, 400, 404), response.text
    if response.status_code != 200:
        assert response.headers["content-type"] == "application/json"
        error = response.json()["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert error["param"] and len(response.content) < 32_000


@settings(max_examples=100)
@given(sent=requests(MODELS))
def test_whatever_is_sent(server: Server, sent: Sent) -> None:
    send(server, sent)


@pytest.mark.soak
@settings(max_examples=5000)
@given(sent=requests(MODELS))
def test_whatever_is_sent_for_long(server: Server, sent: Sent) -> None:
    send(server, sent)
