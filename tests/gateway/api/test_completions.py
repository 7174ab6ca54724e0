from __future__ import annotations

import re
from typing import Any

import pytest

from engine import SamplingParams
from tests.gateway.api.caller import Reply
from tests.gateway.api.conftest import Gateway


async def complete(gateway: Gateway, prompt: Any = "hello", **fields: Any) -> Reply:
    return await gateway.post("/v1/completions", {"model": "alpha", "prompt": prompt, **fields})


async def test_answer_has_openais_shape(gateway: Gateway) -> None:
    answer = (await complete(gateway)).json
    assert re.fullmatch(r"cmpl-[0-9a-f]{32}", answer.pop("id"))
    assert isinstance(answer.pop("created"), int)
    assert answer == {
        "object": "text_completion",
        "model": "alpha",
        "choices": [
            {
                "index": 0,
                "text": "Hello!",
                "finish_reason": "stop",
                "logprobs": None,
                "prompt_logprobs": None,
            }
        ],
        "usage": {
            "prompt_tokens": 6,
            "completion_tokens": 4,
            "total_tokens": 10,
            "prompt_tokens_details": {"cached_tokens": 0},
        },
    }
    assert gateway.alpha.requests[0].sampling == SamplingParams(max_tokens=16)


async def test_max_tokens_defaults_to_what_is_left_when_that_is_less(gateway: Gateway) -> None:
    await complete(gateway, "x" * 190)
    assert gateway.alpha.requests[0].sampling.max_tokens == 9


@pytest.mark.parametrize(
    ("prompt", "prompt_ids"),
    [
        ("ab", [[1, 97, 98]]),
        ([97, 98], [[97, 98]]),
        (["a", "b"], [[1, 97], [1, 98]]),
        ([[97], [98, 99]], [[97], [98, 99]]),
    ],
)
async def test_the_four_forms_of_a_prompt(gateway: Gateway, prompt: Any, prompt_ids: list[list[int]]) -> None:
    answer = (await complete(gateway, prompt)).json
    assert sorted(request.prompt_ids for request in gateway.alpha.requests) == prompt_ids
    assert [choice["index"] for choice in answer["choices"]] == list(range(len(prompt_ids)))
    assert [choice["text"] for choice in answer["choices"]] == ["Hello!"] * len(prompt_ids)
    assert answer["usage"]["prompt_tokens"] == sum(map(len, prompt_ids))
    assert answer["usage"]["completion_tokens"] == 4 * len(prompt_ids)


async def test_a_streamed_batch_tells_its_choices_apart(gateway: Gateway) -> None:
    reply = await complete(
        gateway, ["a", "b"], stream=True, echo=True, stream_options={"include_usage": True}
    )
    *chunks, usage, done = reply.events
    assert done == "[DONE]"
    assert all(len(chunk["choices"]) == 1 and "usage" not in chunk for chunk in chunks)
    for index, prompt in enumerate("ab"):
        mine = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["index"] == index]
        assert "".join(choice["text"] for choice in mine) == prompt + "Hello!"
        assert [choice["finish_reason"] for choice in mine] == [None] * (len(mine) - 1) + ["stop"]
    assert usage["choices"] == [] and usage["usage"]["completion_tokens"] == 8


async def test_echo(gateway: Gateway) -> None:
    assert (await complete(gateway, "Say: ", echo=True)).json["choices"][0]["text"] == "Say: Hello!"
    assert (await complete(gateway, [97, 98], echo=True)).json["choices"][0]["text"] == "abHello!"


async def test_an_echo_of_no_tokens_is_the_prompt_alone(gateway: Gateway) -> None:
    gateway.alpha.cached_tokens = 2
    answer = (await complete(gateway, ["Say", "ing"], echo=True, max_tokens=0, n=2)).json
    assert [choice["text"] for choice in answer["choices"]] == ["Say", "Say", "ing", "ing"]
    assert {choice["finish_reason"] for choice in answer["choices"]} == {"length"}
    usage = answer["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (8, 0, 8)
    assert usage["prompt_tokens_details"] == {"cached_tokens": 4}
    assert {request.sampling.max_tokens for request in gateway.alpha.requests} == {0}


async def test_an_echo_of_no_tokens_is_streamed(gateway: Gateway) -> None:
    fields = {"stream": True, "stream_options": {"include_usage": True}}
    *chunks, usage, done = (await complete(gateway, "Say", echo=True, max_tokens=0, **fields)).events
    assert done == "[DONE]"
    choices = [chunk["choices"][0] for chunk in chunks]
    assert "".join(choice["text"] for choice in choices) == "Say"
    assert [choice["finish_reason"] for choice in choices] == [None, "length"]
    assert (usage["usage"]["completion_tokens"], usage["usage"]["total_tokens"]) == (0, 4)


async def test_an_echo_of_no_tokens_needs_no_room_for_one(gateway: Gateway) -> None:
    for prompt in ([97] * 200, "x" * 199):
        assert (await complete(gateway, prompt, echo=True, max_tokens=0)).status == 200
        reply = await complete(gateway, prompt, echo=True)
        assert (reply.error["code"], reply.error["param"]) == ("context_length_exceeded", "prompt")
    for prompt in ([97] * 201, "x" * 200):
        reply = await complete(gateway, prompt, echo=True, max_tokens=0)
        assert (reply.error["code"], reply.error["param"]) == ("context_length_exceeded", "prompt")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 0, "echo": False}, "max_tokens"),
        ({"max_tokens": -1, "echo": True}, "max_tokens"),
        ({"max_tokens": 0, "echo": True, "min_tokens": 1}, "min_tokens"),
        ({"prompt": None}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": ["a", ""]}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": [1, [1]]}, "prompt"),
        ({"prompt": [[1], "a"]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [256]}, "prompt"),
        ({"prompt": [1.5]}, "prompt[0]"),
        ({"prompt": ["a"] * 1025}, "prompt"),
        ({"logprobs": -1}, "logprobs"),
        ({"prompt_logprobs": 21}, "prompt_logprobs"),
        ({"logprobs": 21}, "logprobs"),
        ({"best_of": 2}, "best_of"),
        ({"best_of": 3, "n": 2}, "best_of"),
        ({"best_of": -1}, "best_of"),
        ({"suffix": "x"}, "suffix"),
    ],
)
async def test_bad_fields_are_named_and_nothing_is_woken(
    gateway: Gateway, fields: dict[str, Any], param: str
) -> None:
    reply = await complete(gateway, **fields)
    assert reply.status == 400
    assert reply.error["param"] == param
    assert gateway.is_cold()


async def test_the_best_of_no_more_than_are_returned_are_all(gateway: Gateway) -> None:
    for fields in ({"best_of": 0}, {"best_of": 1}, {"best_of": 1, "n": 2}, {"best_of": 2, "n": 2}):
        reply = await complete(gateway, **fields)
        assert len(reply.json["choices"]) == fields.get("n", 1)


async def test_token_ids_of_a_bias_that_are_none_are_all_named(gateway: Gateway) -> None:
    odd = ["one", "1.5", "1_0", " 7", "٣", ""]
    message = (await complete(gateway, logit_bias=dict.fromkeys([*odd, "7"], 1))).error["message"]
    assert all(repr(key) in message for key in odd)
    assert "'7'" not in message
    many = await complete(gateway, logit_bias={f"{'one' * 50}{number}": 1 for number in range(250)})
    assert f"{'one' * 50}1'" in many.error["message"]
    assert len(many.body) < 5000


async def test_a_token_id_out_of_vocabulary_is_named_with_its_size(gateway: Gateway) -> None:
    for fields in ({"logit_bias": {"7": 1, "300": 1}}, {"prompt": [7, 300]}):
        message = (await complete(gateway, **fields)).error["message"]
        assert "token id 300 is out of vocabulary" in message
        assert "256" in message


async def test_a_bias_is_of_no_more_tokens_than_there_are(gateway: Gateway) -> None:
    assert (await complete(gateway, logit_bias={str(number): 1 for number in range(256)})).status == 200
    reply = await complete(gateway, logit_bias={f"x{number}": 1 for number in range(257)})
    assert reply.error["param"] == "logit_bias"
    assert "257" in reply.error["message"] and "256" in reply.error["message"]


async def test_a_prompt_is_measured_before_it_is_looked_through(gateway: Gateway) -> None:
    for prompt in ([300] * 201, [1, *["a"] * 200]):
        reply = await complete(gateway, prompt)
        assert (reply.error["code"], reply.error["param"]) == ("context_length_exceeded", "prompt")
    assert "entries" in (await complete(gateway, ["a"] * 1024 + [1])).error["message"]


async def test_a_prompt_that_is_cut_is_looked_through_whole(gateway: Gateway) -> None:
    reply = await complete(gateway, [1, "a", *[1] * 300], truncate_prompt_tokens=5)
    assert (reply.status, reply.error["param"]) == (400, "prompt")
    assert "mixes" in reply.error["message"]


async def test_a_missing_prompt_is_named(gateway: Gateway) -> None:
    assert (await gateway.post("/v1/completions", {"model": "alpha"})).error["param"] == "prompt"


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "param"),
    [
        ("x" * 100, 99, None),
        ("x" * 100, 100, "max_tokens"),
        ([97] * 100, 101, "max_tokens"),
        (["a", "x" * 100], 100, "max_tokens"),
        ("x" * 200, 100, "prompt"),
        ([97] * 200, 1, "prompt"),
    ],
)
async def test_what_does_not_fit_into_the_context_is_named(
    gateway: Gateway, prompt: Any, max_tokens: int, param: str | None
) -> None:
    reply = await complete(gateway, prompt, max_tokens=max_tokens)
    if param is None:
        assert reply.status == 200
        return
    assert reply.status == 400
    assert (reply.error["code"], reply.error["param"]) == ("context_length_exceeded", param)
    assert "200" in reply.error["message"]
    assert gateway.is_cold()


async def test_one_prompt_that_does_not_fit_refuses_the_batch(gateway: Gateway) -> None:
    reply = await complete(gateway, ["a", "x" * 200])
    assert (reply.status, reply.error["code"]) == (400, "context_length_exceeded")
    assert gateway.is_cold()


async def test_a_failure_of_one_prompt_ends_the_batch(gateway: Gateway) -> None:
    gateway.alpha.failure = RuntimeError("secret")
    reply = await complete(gateway, ["a", "b"])
    assert reply.status == 500
    assert "secret" not in reply.error["message"]
    assert gateway.in_flight() == 0 and gateway.alpha.running == 0


@pytest.mark.parametrize(
    ("prompt", "most", "prompt_ids"),
    [([5, 6, 7, 8], 3, [6, 7, 8]), ("abcd", 3, [1, 99, 100]), ("x" * 1000, -1, [1, *[120] * 199])],
)
async def test_of_a_prompt_that_is_cut_the_end_is_kept(
    gateway: Gateway, prompt: Any, most: int, prompt_ids: list[int]
) -> None:
    reply = await complete(gateway, prompt, truncate_prompt_tokens=most, max_tokens=0, echo=True)
    assert reply.status == 200
    assert [list(request.prompt_ids) for request in gateway.alpha.requests] == [prompt_ids]
    assert reply.json["choices"][0]["text"] == bytes(prompt_ids).decode(), "as it was shown to the model"
