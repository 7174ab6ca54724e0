"""Log probabilities in the shapes that clients know, each token's with its text."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from engine import Delta, TokenLogprob
from tests.gateway.api.caller import Reply
from tests.gateway.api.conftest import Gateway
from tests.gateway.api.scripted import ScriptedEngine


def told(token_id: int, *others: int) -> TokenLogprob:
    """The likelier ``others`` first."""
    top = tuple((other, -0.5 * rank) for rank, other in enumerate((*others, token_id), start=1))
    return TokenLogprob(token_id=token_id, logprob=top[-1][1], rank=len(top), top=top)


def delta(token_id: int, text: str, **fields: Any) -> Delta:
    return Delta(token_ids=(token_id,), text=text, logprobs=(told(token_id, 65),), **fields)


E_ACUTE = "é".encode()
TEXT = "Hé st!"
ANSWER = [
    delta(ord("H"), "H"),
    delta(E_ACUTE[0], ""),
    delta(E_ACUTE[1], "é"),
    delta(ord(" "), " "),
    delta(ord("s"), ""),  # may begin a stop string
    delta(ord("t"), ""),
    delta(ord("!"), "st!", finish_reason="length"),
]
TOKENS = ["H", "\ufffd", "\ufffd", " ", "s", "t", "!"]


async def chat(gateway: Gateway, **fields: Any) -> Reply:
    reply = await gateway.chat(logprobs=True, **fields)
    assert reply.status == 200, reply.body
    return reply


async def complete(gateway: Gateway, **fields: Any) -> Reply:
    body = {"model": "alpha", "prompt": "aé", "logprobs": 2, **fields}
    reply = await gateway.post("/v1/completions", body)
    assert reply.status == 200, reply.body
    return reply


async def test_a_chats_have_openais_shape(gateway: Gateway) -> None:
    gateway.alpha.deltas = ANSWER
    reply = await chat(gateway, top_logprobs=2)
    answer = ChatCompletion.model_validate(reply.json, strict=True)
    assert answer.choices[0].message.content == TEXT
    assert reply.json["choices"][0]["logprobs"].keys() == {"content", "refusal"}
    logprobs = answer.choices[0].logprobs
    content = (logprobs and logprobs.content) or []
    assert [entry.token for entry in content] == TOKENS
    assert b"".join(bytes(entry.bytes or []) for entry in content) == TEXT.encode()
    assert {entry.logprob for entry in content} == {-1.0}
    likely = [(top.token, top.bytes, top.logprob) for top in content[1].top_logprobs]
    assert likely == [("A", [65], -0.5), ("\ufffd", [E_ACUTE[0]], -1.0)]


async def test_each_chunk_tells_of_its_own_tokens(gateway: Gateway) -> None:
    gateway.alpha.deltas = ANSWER
    whole = (await chat(gateway)).json["choices"][0]["logprobs"]["content"]
    chunks = [
        ChatCompletionChunk.model_validate(event) for event in (await chat(gateway, stream=True)).events[:-1]
    ]
    said = [
        (choice.delta.content, [entry.token for entry in (choice.logprobs and choice.logprobs.content) or []])
        for chunk in chunks
        for choice in chunk.choices
    ]
    assert said == [
        ("", []),
        ("H", ["H"]),
        ("é", ["\ufffd", "\ufffd"]),
        (" ", [" "]),
        ("st!", ["s", "t", "!"]),
        (None, []),
    ]
    streamed = [
        entry.model_dump()
        for chunk in chunks
        if (logprobs := chunk.choices[0].logprobs) and logprobs.content
        for entry in logprobs.content
    ]
    assert streamed == whole


@pytest.mark.parametrize(
    ("deltas", "tokens"),
    [
        ([delta(97, "a"), delta(0, "", finish_reason="stop")], ["a"]),
        ([delta(97, "a"), delta(83, ""), delta(84, "", finish_reason="stop")], ["a"]),
        ([delta(97, ""), delta(98, "ab", finish_reason="stop")], ["a", "b"]),
        ([delta(97, ""), delta(98, ""), delta(0, "ab", finish_reason="stop")], ["a", "b"]),
        ([delta(97, ""), delta(98, "a", finish_reason="stop")], ["a"]),
        ([delta(97, ""), delta(98, "", finish_reason="length")], ["a", "b"]),
    ],
)
async def test_what_a_stop_cuts_off_is_no_content(
    gateway: Gateway, deltas: list[Delta], tokens: list[str]
) -> None:
    gateway.alpha.deltas = deltas
    content = (await chat(gateway)).json["choices"][0]["logprobs"]["content"]
    assert [entry["token"] for entry in content] == tokens


@pytest.mark.parametrize("stream", [False, True])
async def test_null_without_being_asked_for(gateway: Gateway, stream: bool) -> None:
    gateway.alpha.deltas = [Delta(token_ids=(65,), text="A", finish_reason="length")]
    chat = await gateway.chat(stream=stream)
    text = await complete(gateway, logprobs=None, stream=stream)
    for reply in (chat, text):
        answers = reply.events[:-1] if stream else [reply.json]
        assert all(choice["logprobs"] is None for answer in answers for choice in answer["choices"])
    if stream:
        assert b"prompt_logprobs" not in chat.body + text.body
    else:
        assert chat.json["prompt_logprobs"] is text.json["choices"][0]["prompt_logprobs"] is None


async def test_minus_infinity_can_be_sent(gateway: Gateway) -> None:
    never = TokenLogprob(token_id=65, logprob=-float("inf"), rank=2, top=((66, 0.0), (65, -float("inf"))))
    gateway.alpha.deltas = [
        Delta(
            token_ids=(65,),
            text="A",
            logprobs=(never,),
            prompt_logprobs=(None, never),
            finish_reason="length",
        )
    ]
    (entry,) = (await chat(gateway, top_logprobs=2)).json["choices"][0]["logprobs"]["content"]
    assert entry["logprob"] == entry["top_logprobs"][1]["logprob"] == -9999.0
    choice = (await complete(gateway, prompt_logprobs=2)).json["choices"][0]
    assert choice["logprobs"]["token_logprobs"] == [-9999.0]
    assert choice["prompt_logprobs"][1]["65"]["logprob"] == -9999.0


async def test_a_completions_have_openais_shape(gateway: Gateway) -> None:
    gateway.alpha.deltas = ANSWER
    reply = await complete(gateway)
    answer = Completion.model_validate(reply.json, strict=True)
    logprobs = answer.choices[0].logprobs
    keys = {"tokens", "token_logprobs", "top_logprobs", "text_offset"}
    assert logprobs and reply.json["choices"][0]["logprobs"].keys() == keys
    assert logprobs.tokens == TOKENS
    assert logprobs.token_logprobs == [-1.0] * 7
    assert logprobs.top_logprobs and logprobs.top_logprobs[0] == {"A": -0.5, "H": -1.0}
    assert logprobs.text_offset == [0, 1, 1, 2, 3, 4, 5]


async def test_a_zero_asks_for_the_token_alone(gateway: Gateway) -> None:
    only = TokenLogprob(token_id=65, logprob=-1.0, rank=3)
    gateway.alpha.deltas = [Delta(token_ids=(65,), text="A", logprobs=(only,), finish_reason="length")]
    logprobs = (await complete(gateway, logprobs=0)).json["choices"][0]["logprobs"]
    assert gateway.alpha.requests[0].sampling.logprobs == 0
    assert logprobs["top_logprobs"] == [{"A": -1.0}]


PROMPT = [None, *(told(byte) for byte in b"a" + E_ACUTE)]
"""The first token of an encoded text is 1."""


def with_prompt(deltas: list[Delta]) -> list[Delta]:
    first, *rest = deltas
    return [
        Delta(
            token_ids=first.token_ids, text=first.text, logprobs=first.logprobs, prompt_logprobs=tuple(PROMPT)
        ),
        *rest,
    ]


def concatenated(reply: Reply, index: int) -> dict[str, list[Any]]:
    """The lists of a streamed choice."""
    parts = [
        choice["logprobs"]
        for event in reply.events[:-1]
        for choice in event["choices"]
        if choice["index"] == index and choice["logprobs"]
    ]
    return {key: [item for part in parts for item in part[key]] for key in parts[0]}


async def test_an_echo_has_its_prompts_and_a_stream_the_same(gateway: Gateway) -> None:
    gateway.alpha.deltas = with_prompt(ANSWER)
    reply = await complete(gateway, echo=True, prompt=["aé", "aé"])
    assert {request.sampling.prompt_logprobs for request in gateway.alpha.requests} == {2}
    streamed = await complete(gateway, echo=True, prompt=["aé", "aé"], stream=True)
    for index in (0, 1):
        choice = reply.json["choices"][index]
        assert choice["text"] == "aé" + TEXT
        assert choice["prompt_logprobs"] is None
        logprobs = choice["logprobs"]
        assert logprobs["tokens"] == ["\x01", "a", "\ufffd", "\ufffd", *TOKENS]
        assert logprobs["token_logprobs"] == [None, -0.5, -0.5, -0.5, *[-1.0] * 7]
        assert logprobs["top_logprobs"][:2] == [None, {"a": -0.5}]
        assert logprobs["text_offset"] == [0, 1, 2, 2, 2, 3, 3, 4, 5, 6, 7]
        assert concatenated(streamed, index) == logprobs


@pytest.mark.parametrize("stream", [False, True])
async def test_an_echo_of_no_tokens_has_its_prompts_alone(gateway: Gateway, stream: bool) -> None:
    gateway.alpha.deltas = with_prompt(ANSWER)
    reply = await complete(gateway, echo=True, max_tokens=0, n=2, stream=stream)
    for index in (0, 1):
        found = concatenated(reply, index) if stream else reply.json["choices"][index]["logprobs"]
        assert found == {
            "tokens": ["\x01", "a", "\ufffd", "\ufffd"],
            "token_logprobs": [None, -0.5, -0.5, -0.5],
            "top_logprobs": [None, {"a": -0.5}, {"\ufffd": -0.5}, {"\ufffd": -0.5}],
            "text_offset": [0, 1, 2, 2],
        }


async def test_an_echo_of_no_tokens_tells_none_that_nobody_asked_for(gateway: Gateway) -> None:
    gateway.alpha.deltas = with_prompt(ANSWER)
    choice = (await complete(gateway, echo=True, max_tokens=0, logprobs=None, prompt_logprobs=1)).json[
        "choices"
    ][0]
    assert choice["logprobs"] is None
    assert len(choice["prompt_logprobs"]) == len(PROMPT)


async def test_prompt_logprobs_have_vllms_shape(gateway: Gateway) -> None:
    gateway.alpha.deltas = with_prompt(ANSWER)
    expected = [
        None,
        {"97": {"logprob": -0.5, "rank": 1, "decoded_token": "a"}},
        {"195": {"logprob": -0.5, "rank": 1, "decoded_token": "\ufffd"}},
        {"169": {"logprob": -0.5, "rank": 1, "decoded_token": "\ufffd"}},
    ]
    assert (await chat(gateway, prompt_logprobs=1)).json["prompt_logprobs"] == expected
    assert gateway.alpha.requests[-1].sampling.prompt_logprobs == 1
    reply = await complete(gateway, prompt=["aé", "aé"], prompt_logprobs=0)
    assert [choice["prompt_logprobs"] for choice in reply.json["choices"]] == [expected, expected]


@pytest.mark.parametrize("stream", [False, True])
async def test_every_choice_has_its_own_and_the_one_prompts(gateway: Gateway, stream: bool) -> None:
    gateway.alpha.deltas = with_prompt(ANSWER)
    reply = await complete(gateway, n=2, echo=True, stream=stream)
    for index in (0, 1):
        found = concatenated(reply, index) if stream else reply.json["choices"][index]["logprobs"]
        assert found["tokens"] == ["\x01", "a", "\ufffd", "\ufffd", *TOKENS]
    reply = await chat(gateway, n=2, stream=stream)
    answers = reply.events[:-1] if stream else [reply.json]
    for index in (0, 1):
        mine = [one for answer in answers for one in answer["choices"] if one["index"] == index]
        told_of = [
            entry["token"] for one in mine for entry in (one["logprobs"] or {"content": []})["content"]
        ]
        assert told_of == TOKENS


@pytest.mark.parametrize(
    ("fields", "off_the_loop"),
    [
        ({}, False),
        ({"n": 128}, True),
        ({"n": 128, "stream": True}, False),
        ({"echo": True}, False),
        ({"echo": True, "stream": True}, True),
        ({"n": 128, "prompt_logprobs": 20, "logprobs": None}, True),
    ],
)
async def test_what_would_be_felt_is_encoded_off_the_loop(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], off_the_loop: bool
) -> None:
    gateway.alpha.deltas = with_prompt(ANSWER)
    threads = set()

    def token_bytes(_: ScriptedEngine, token_id: int) -> bytes:
        threads.add(threading.current_thread())
        return bytes([token_id])

    monkeypatch.setattr(ScriptedEngine, "token_bytes", token_bytes)
    await complete(gateway, **fields)
    loop = threading.current_thread()
    assert loop not in threads if off_the_loop else threads == {loop}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt_logprobs": 20, "n": 48}, "n"),
        ({"prompt_logprobs": 20, "n": 47}, None),
        ({"prompt_logprobs": 20, "prompt": [[97] * 1000] * 48}, "prompt_logprobs"),
        ({"echo": True, "logprobs": 20, "n": 48}, "n"),
        ({"echo": True, "logprobs": 20, "n": 48, "stream": True}, "n"),
        ({"echo": True, "logprobs": 20, "prompt": [[97] * 1000] * 48}, "logprobs"),
        ({"echo": True, "logprobs": 1, "n": 48, "prompt_logprobs": 20}, "n"),
        ({"echo": True, "n": 128}, None),
        ({"logprobs": 20, "n": 128}, None),
    ],
)
async def test_a_prompts_are_not_told_a_million_times(
    gateway: Gateway, fields: dict[str, Any], param: str | None
) -> None:
    gateway.alpha.max_model_len = 1001
    gateway.alpha.deltas = [Delta(token_ids=(97,), text="a", finish_reason="length")]
    body = {"model": "alpha", "prompt": [97] * 1000, "max_tokens": 1, **fields}
    reply = await gateway.post("/v1/completions", body)
    assert reply.status == (400 if param else 200)
    if param:
        assert reply.error["param"] == param
        assert gateway.is_cold()


async def test_nor_are_a_chats(gateway: Gateway) -> None:
    gateway.alpha.max_model_len = 60_000
    fine = await gateway.chat("x" * 40_000, prompt_logprobs=20, n=2)
    assert fine.status == 200
    reply = await gateway.chat("x" * 50_000, prompt_logprobs=20)
    assert (reply.status, reply.error["param"]) == (400, "prompt_logprobs")
