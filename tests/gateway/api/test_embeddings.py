from __future__ import annotations

import asyncio
import base64
from array import array
from typing import Any

import pytest
from openai.types import CreateEmbeddingResponse

from engine import RequestError
from tests.gateway.api.caller import Reply, until
from tests.gateway.api.conftest import Gateway


@pytest.fixture
def embedder(gateway: Gateway) -> Gateway:
    """``alpha`` embeds, ``org/beta`` generates."""
    gateway.alpha.kind = "embed"
    gateway.alpha.embedding_size = 3
    return gateway


def body(input: Any = "hello", **fields: Any) -> dict[str, Any]:
    return {"model": "alpha", "input": input, **fields}


async def embed(gateway: Gateway, input: Any = "hello", **fields: Any) -> Reply:
    return await gateway.post("/v1/embeddings", body(input, **fields))


async def test_answer_has_openais_shape(embedder: Gateway) -> None:
    reply = await embed(embedder)
    assert reply.status == 200
    assert reply.json == {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [1.0, 1.0, 1.0]}],
        "model": "alpha",
        "usage": {"prompt_tokens": 6, "total_tokens": 6},
    }
    CreateEmbeddingResponse.model_validate(reply.json)
    assert reply.headers["x-request-id"]
    assert [part.partition(";")[0] for part in reply.headers["server-timing"].split(", ")] == [
        "queue",
        "wake",
        "prefill",
    ]


@pytest.mark.parametrize(
    ("input", "ids"),
    [
        ("ab", [[1, 97, 98]]),
        ([97, 98], [[97, 98]]),
        (["a", "b"], [[1, 97], [1, 98]]),
        ([[97], [98, 99]], [[97], [98, 99]]),
    ],
)
async def test_the_four_forms_of_an_input(embedder: Gateway, input: Any, ids: list[list[int]]) -> None:
    answer = (await embed(embedder, input)).json
    assert embedder.alpha.embedded == [ids]
    assert [item["index"] for item in answer["data"]] == list(range(len(ids)))
    assert [item["embedding"] for item in answer["data"]] == [[float(item[0])] * 3 for item in ids]
    assert answer["usage"]["prompt_tokens"] == sum(map(len, ids))


async def test_base64_is_of_float32(embedder: Gateway) -> None:
    answer = (await embed(embedder, [[7], [8]], encoding_format="base64")).json
    numbers = [array("f", base64.b64decode(item["embedding"])).tolist() for item in answer["data"]]
    assert numbers == [[7.0] * 3, [8.0] * 3]


async def test_dimensions(embedder: Gateway) -> None:
    assert (await embed(embedder, dimensions=3)).status == 200, "what they have is no cut"
    embedder.alpha.matryoshka = True
    assert (await embed(embedder, dimensions=2)).json["data"][0]["embedding"] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": [[]]}, "input"),
        ({"input": ["a", ""]}, "input"),
        ({"input": ["a", 1]}, "input"),
        ({"input": [[1], "a"]}, "input"),
        ({"input": [-1]}, "input"),
        ({"input": [256]}, "input"),
        ({"input": [1.5]}, "input[0]"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": [[5]] * 2049}, "input"),
        ({"input": "x" * 200}, "input"),
        ({"input": ["x", [5] * 201]}, "input"),
        ({"encoding_format": "int8"}, "encoding_format"),
        ({"dimensions": 2}, "dimensions"),
        ({"dimensions": 0}, "dimensions"),
        ({"keep_alive": "soon"}, "keep_alive"),
        ({"model": "org/beta"}, "model"),
    ],
)
async def test_bad_fields_are_named_and_nothing_is_woken(
    embedder: Gateway, fields: dict[str, Any], param: str
) -> None:
    reply = await embed(embedder, **fields)
    assert reply.status == 400
    assert reply.error["param"] == param
    assert embedder.is_cold()


async def test_more_dimensions_than_there_are(embedder: Gateway) -> None:
    embedder.alpha.matryoshka = True
    assert (await embed(embedder, dimensions=4)).error["param"] == "dimensions"


async def test_the_longest_input_fits(embedder: Gateway) -> None:
    assert (await embed(embedder, "x" * 199)).status == 200
    reply = await embed(embedder, "x" * 200)
    assert (reply.status, reply.error["code"]) == (400, "context_length_exceeded")


@pytest.mark.parametrize(
    ("route", "request_body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hello"}]}),
        ("/v1/completions", {"prompt": "hello"}),
    ],
)
async def test_an_embedding_model_is_asked_for_text(
    embedder: Gateway, route: str, request_body: dict[str, Any]
) -> None:
    reply = await embedder.post(route, {"model": "alpha", **request_body})
    assert (reply.status, reply.error["param"]) == (400, "model")
    assert "makes embeddings" in reply.error["message"]
    assert embedder.is_cold()


async def test_a_sleeping_model_wakes_once_for_all(embedder: Gateway) -> None:
    replies = await asyncio.gather(*(embed(embedder) for _ in range(5)))
    assert [reply.status for reply in replies] == [200] * 5
    assert embedder.alpha.wakes == 1
    await until(lambda: embedder.in_flight() == 0)


async def test_a_client_that_leaves_ends_the_work(embedder: Gateway) -> None:
    embedder.alpha.may_step.clear()
    call = embedder.call("POST", "/v1/embeddings", json_body=body())
    await until(lambda: embedder.alpha.running == 1)
    assert embedder.in_flight() == 1
    call.leave()
    await call.ended()
    assert (embedder.alpha.running, embedder.in_flight()) == (0, 0)


async def test_a_failure_says_nothing_of_the_inside(embedder: Gateway) -> None:
    embedder.alpha.failures["embed"] = [RuntimeError("secret"), RequestError("no", param="input")]
    reply = await embed(embedder)
    assert reply.status == 500
    assert "secret" not in reply.error["message"]
    assert (await embed(embedder)).status == 400
    assert (await embed(embedder)).status == 200
    assert embedder.in_flight() == 0


async def test_a_forced_sleep_cuts_what_runs(embedder: Gateway) -> None:
    embedder.alpha.may_step.clear()
    call = embedder.call("POST", "/v1/embeddings", json_body=body())
    await until(lambda: embedder.alpha.running == 1)
    assert (await embedder.post("/sleep?model=alpha&mode=abort")).status == 200
    reply = await call.reply()
    assert (reply.status, reply.error["code"]) == (503, "model_asleep")
    assert (embedder.alpha.running, embedder.in_flight()) == (0, 0)


@pytest.mark.parametrize(
    ("input", "most", "ids"),
    [
        ([5, 6, 7, 8], 3, [5, 6, 7]),
        ([5, 6, 7, 8], -1, [5, 6, 7, 8]),
        ([5, 6, 7, 8], 200, [5, 6, 7, 8]),
        (list(range(250)), -1, list(range(200))),
        ("x" * 1000, 3, [1, 120, 120]),
    ],
)
async def test_a_long_input_can_be_cut(embedder: Gateway, input: Any, most: int, ids: list[int]) -> None:
    reply = await embed(embedder, input, truncate_prompt_tokens=most)
    assert reply.status == 200
    assert embedder.alpha.embedded == [[ids]]
    assert reply.json["usage"]["prompt_tokens"] == len(ids)


@pytest.mark.parametrize("most", [0, -2, 201, 2.5, "3"])
async def test_what_an_input_cannot_be_cut_to(embedder: Gateway, most: Any) -> None:
    reply = await embed(embedder, truncate_prompt_tokens=most)
    assert reply.status == 400
    assert reply.error["param"] == "truncate_prompt_tokens"
    assert embedder.is_cold()
