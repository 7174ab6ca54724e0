"""The real server, asked for whatever its own description allows and forbids, and sent bodies gone wrong.

Its models fall asleep all the time.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.config import GenerationConfig
from schemathesis.core.deserialization import DeserializationContext
from schemathesis.core.transport import Response
from schemathesis.generation import GenerationMode
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

from tests.bench.random_checkpoint import write_checkpoint
from tests.bodies.broken import Sent, requests
from tests.bodies.good import CHAT, COMPLETIONS, DETOKENIZE, EMBEDDINGS, RPC, TOKENIZE
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
TINY = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "vocab_size": 300}
KEY = {"authorization": "Bearer sesame"}

NOT_CHECKED = [
    # What fits its type may ask for what there is not: a longer context, other tokens, a broken expression.
    positive_data_acceptance,
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("fuzz")
    talker = write_checkpoint(directory / "talker", "60m", **TINY)
    with running(directory, CONFIG.format(talker=talker, embedder=minilm())) as server:
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
            known, nullable = {"enum": [model_for(name)]}, "anyOf" in schema["properties"]["model"]
            schema["properties"]["model"] = {"anyOf": [known, {"type": "null"}]} if nullable else known
        # Shorter ones end in the 503 that was asked for.
        schema.get("properties", {}).pop("timeout", None)
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
    lines = response.content.decode().split("\n")
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    return [json.loads(item) for item in data if item != "[DONE]"]


api = schemathesis.openapi.from_dict(description())
OPERATIONS = {operation.label: operation for operation in (found.ok() for found in api.get_all_operations())}
answered: defaultdict[str, Counter[int]] = defaultdict(Counter)
"""By operation, how often it was answered with which status code."""


def check(case: schemathesis.Case, server: Server) -> None:
    """Before every tenth case the models are put to sleep, lightly or deeply."""
    count = sum(map(Counter.total, answered.values()))
    if count % 10 == 0:
        server.http.post(f"/sleep?level={1 + count // 10 % 2}")
    statuses = answered[case.operation.label]
    not_checked = [*NOT_CHECKED, ignored_auth] if statuses[200] else NOT_CHECKED  # once is enough
    response = case.call(base_url=server.url, headers=KEY)
    case.validate_response(response, headers=KEY, excluded_checks=not_checked)
    statuses[response.status_code] += 1


def check_each_constraint(operation: APIOperation, server: Server, modes: list[GenerationMode]) -> None:
    """Kept to, or broken, one by one."""
    for case in api.iter_coverage_cases(
        operation, generation_modes=modes, generation_config=GenerationConfig()
    ):
        check(case, server)


def check_many(operation: APIOperation, server: Server, examples: int) -> None:
    @settings(max_examples=examples, suppress_health_check=list(HealthCheck))
    @given(case=st.one_of([operation.as_strategy(generation_mode=mode) for mode in GenerationMode]))
    def run(case: schemathesis.Case) -> None:
        check(case, server)

    run()


@pytest.mark.parametrize("label", OPERATIONS)
def test_it_does_what_it_says(server: Server, label: str) -> None:
    check_each_constraint(OPERATIONS[label], server, [GenerationMode.POSITIVE])
    check_many(OPERATIONS[label], server, 10)


@pytest.mark.soak
@pytest.mark.parametrize("label", OPERATIONS)
def test_it_does_what_it_says_for_long(server: Server, label: str) -> None:
    check_each_constraint(OPERATIONS[label], server, list(GenerationMode))
    check_many(OPERATIONS[label], server, 400)


def test_all_was_tried(server: Server) -> None:
    if not answered:
        pytest.skip("nothing was asked")
    for label, statuses in answered.items():
        assert statuses[200], label
    assert server.log.read_text().count("asleep -> waking") > 5


MODELS = {
    CHAT: "talker",
    COMPLETIONS: "talker",
    EMBEDDINGS: "embedder",
    TOKENIZE: "talker",
    DETOKENIZE: "embedder",
    RPC: "talker",
}


def send(server: Server, sent: Sent) -> None:
    headers = {"content-type": sent.content_type} if sent.content_type else {}
    # What these allow an answer, the client that checks it sees in a body that is whole.
    whole = b"echo" in sent.body or b"base64" in sent.body
    response = server.http.post(sent.path, content=sent.body if whole else iter(sent.chunks), headers=headers)
    if response.status_code == 503:
        assert (sent.path, response.json()["error"]["code"]) == (RPC, "wait_timeout"), "as the client wished"
        return
    assert response.status_code in (200, 400, 404), response.text
    if response.status_code != 200:
        assert response.headers["content-type"] == "application/json"
        error = response.json()["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert error["param"] and len(response.content) < 32_000


@settings(max_examples=60)
@given(sent=requests(MODELS))
def test_whatever_is_sent(server: Server, sent: Sent) -> None:
    send(server, sent)


@pytest.mark.soak
@settings(max_examples=5000)
@given(sent=requests(MODELS))
def test_whatever_is_sent_for_long(server: Server, sent: Sent) -> None:
    send(server, sent)
