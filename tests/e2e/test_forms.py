"""Answers in the form that was asked for, and what the model thought of them, by the real server."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.e2e.server import Server, running

DEMO = Path(__file__).parents[2] / "engine" / "demo" / "demo-a"
SCHEMA = {
    "type": "object",
    "properties": {"mice": {"type": "integer", "minimum": 0, "maximum": 99}, "asleep": {"type": "boolean"}},
    "required": ["mice", "asleep"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    config = f'[models.demo]\npath = "{DEMO}"\n'
    with running(tmp_path_factory.mktemp("forms"), config) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with server.openai() as client:
        yield client


def test_a_bad_schema_is_told_before_anything_wakes(server: Server, client: openai.OpenAI) -> None:
    for bad in ({"type": "king"}, {"not": {"pattern": "a"}}):
        with pytest.raises(openai.BadRequestError) as caught:
            chat(client, response_format=json_schema(bad))
        assert caught.value.param == "response_format"
    assert server.status("demo")["state"] == "cold"


def json_schema(schema: Any = SCHEMA) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "mice", "strict": True, "schema": schema}}


def chat(client: openai.OpenAI, **fields: Any) -> Any:
    return client.chat.completions.create(
        model="demo",
        messages=[{"role": "user", "content": "How many mice?"}],
        **{"max_tokens": 200, "temperature": 1.0, "seed": 5, **fields},
    )


def is_right(text: str) -> bool:
    value = json.loads(text)
    return list(value) == ["mice", "asleep"] and 0 <= value["mice"] <= 99 and type(value["asleep"]) is bool


def test_a_schema_is_kept_to_streamed_or_not_and_after_a_sleep(server: Server, client: openai.OpenAI) -> None:
    answers = chat(client, response_format=json_schema(), n=3).choices
    assert all(is_right(choice.message.content) for choice in answers)
    assert {choice.finish_reason for choice in answers} == {"stop"}
    chunks = [chunk for chunk in chat(client, response_format=json_schema(), stream=True) if chunk.choices]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == answers[0].message.content
    server.http.post("/sleep?model=demo&level=2")
    again = chat(client, response_format=json_schema()).choices[0]
    assert again.message.content == answers[0].message.content


@pytest.mark.parametrize("field", ["guided_regex", "structured_outputs"])
def test_vllms_fields(client: openai.OpenAI, field: str) -> None:
    expression = "[0-9]{2} (mice|dormice)"
    value = expression if field == "guided_regex" else {"regex": expression}
    text = chat(client, extra_body={field: value}).choices[0].message.content
    assert re.fullmatch(expression, text)


def test_a_bias_changes_the_answer(client: openai.OpenAI) -> None:
    plain = chat(client, temperature=0, max_tokens=5).choices[0].message.content
    biased = chat(client, temperature=0, max_tokens=5, logit_bias={"65": 100}).choices[0].message.content
    assert len(biased) == 5 * len(set(biased)) and biased != plain


def test_log_probabilities_of_an_answer(client: openai.OpenAI) -> None:
    choice = chat(client, logprobs=True, top_logprobs=5, temperature=0, max_tokens=12).choices[0]
    content = choice.logprobs.content
    assert b"".join(bytes(entry.bytes) for entry in content).decode() == choice.message.content
    for entry in content:
        assert len(entry.top_logprobs) == 5
        assert entry.logprob == entry.top_logprobs[0].logprob <= 0
        assert sum(math.exp(top.logprob) for top in entry.top_logprobs) <= 1 + 1e-5


def test_a_text_is_scored_as_it_was_made(client: openai.OpenAI) -> None:
    """What is generated has, sent back as a prompt, the same log probabilities."""
    prompt = "The dormouse"
    made = client.completions.create(
        model="demo", prompt=prompt, max_tokens=8, temperature=0, logprobs=1
    ).choices[0]
    assert made.logprobs is not None and made.logprobs.token_logprobs is not None
    scored = client.completions.create(
        model="demo", prompt=prompt + made.text, max_tokens=1, temperature=0, logprobs=1, echo=True
    ).choices[0]
    assert scored.text.startswith(prompt + made.text)
    assert scored.logprobs is not None and scored.logprobs.token_logprobs is not None
    assert scored.logprobs.tokens is not None and made.logprobs.tokens is not None
    assert scored.logprobs.token_logprobs[0] is None
    where = len(scored.logprobs.tokens) - 1 - len(made.logprobs.tokens)
    assert scored.logprobs.tokens[where:-1] == made.logprobs.tokens
    expected = pytest.approx(made.logprobs.token_logprobs, abs=0.15)
    assert scored.logprobs.token_logprobs[where:-1] == expected


def test_a_text_is_scored_without_making_any(client: openai.OpenAI) -> None:
    def scored(max_tokens: int) -> Any:
        return client.completions.create(
            model="demo", prompt="The dormouse", max_tokens=max_tokens, temperature=0, logprobs=1, echo=True
        )

    alone, longer = scored(0), scored(1)
    assert (alone.choices[0].text, alone.choices[0].finish_reason) == ("The dormouse", "length")
    assert (alone.usage.completion_tokens, alone.usage.total_tokens) == (0, alone.usage.prompt_tokens)
    logprobs, more = alone.choices[0].logprobs, longer.choices[0].logprobs
    assert logprobs.tokens == more.tokens[:-1]
    assert logprobs.token_logprobs[0] is None
    assert logprobs.token_logprobs[1:] == pytest.approx(more.token_logprobs[1:-1], abs=0.15)
