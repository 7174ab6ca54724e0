"""What the validator must refuse, what it must let pass, and the three places where it is lenient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.openai_schema import answers
from tests.openai_schema.answers import CHAT, EMBEDDINGS, TEXT
from tests.openai_schema.validate import Violation, check_chunk, check_error, check_response

Answer = dict[str, Any]
GONE = object()


def spoilt(answer: Answer, path: str, value: object) -> Answer:
    """With ``value`` at ``path``, or without what was there."""
    *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    place: Any = answer
    for step in way:
        place = place[step]
    if value is GONE:
        del place[last]
    else:
        place[last] = value
    return answer


def test_the_right_ones_pass() -> None:
    check_response(TEXT, answers.completion())
    check_response(CHAT, answers.chat())
    check_response(EMBEDDINGS, answers.embeddings())
    check_response("/v1/models", {"object": "list", "data": [answers.model()]})
    check_response("/v1/models/org/m", answers.model())
    check_chunk(CHAT, answers.chunk())
    check_chunk(CHAT, answers.error())
    check_chunk(TEXT, answers.completion())
    check_error(answers.error())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("id", GONE),
        ("object", "chat.completion.chunk"),
        ("created", 1.5),
        ("model", None),
        ("system_fingerprint", None),
        ("usage", None),
        ("usage.total_tokens", GONE),
        ("usage.prompt_tokens_details", None),
        ("choices", None),
        ("choices.0.index", GONE),
        ("choices.0.finish_reason", None),
        ("choices.0.finish_reason", "eos"),
        ("choices.0.logprobs", GONE),
        ("choices.0.logprobs", {"content": []}),
        (
            "choices.0.logprobs",
            {"content": [{"token": "a", "logprob": -1.0, "bytes": [97]}], "refusal": None},
        ),
        ("choices.0.message.refusal", GONE),
        ("choices.0.message.content", GONE),
        ("choices.0.message.role", "user"),
        ("choices.0.message.tool_calls", None),
        ("choices.0.message.tool_calls", [{"id": "1", "type": "function", "function": {"name": "f"}}]),
    ],
)
def test_a_chat_completion_that_is_none(path: str, value: object) -> None:
    refused(lambda: check_response(CHAT, spoilt(answers.chat(), path, value)), path, value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("object", "chat.completion"),
        ("choices.0.delta", GONE),
        ("choices.0.delta.content", 5),
        ("choices.0.delta.tool_calls", None),
        ("choices.0.delta.tool_calls", [{"function": {"name": "f"}}]),
        ("choices.0.finish_reason", GONE),
        ("choices.0.logprobs", {"content": None}),
        ("usage", {}),
    ],
)
def test_a_chunk_that_is_none(path: str, value: object) -> None:
    refused(lambda: check_chunk(CHAT, spoilt(answers.chunk(), path, value)), path, value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("choices.0.finish_reason", None),
        ("choices.0.finish_reason", "tool_calls"),
        ("choices.0.logprobs", GONE),
        ("choices.0.logprobs.token_logprobs.0", None),
        ("choices.0.logprobs.top_logprobs.0", None),
        ("choices.0.text", None),
        ("usage", None),
    ],
)
def test_a_text_completion_that_is_none(path: str, value: object) -> None:
    refused(lambda: check_response(TEXT, spoilt(answers.completion(), path, value)), path, value)


@pytest.mark.parametrize(
    ("path", "value"),
    [("data.0.embedding", "AAAAPw=="), ("data.0.embedding.1", None), ("data.0.index", GONE), ("usage", GONE)],
)
def test_embeddings_that_are_none(path: str, value: object) -> None:
    asked = {"encoding_format": "float"}
    refused(lambda: check_response(EMBEDDINGS, spoilt(answers.embeddings(), path, value), asked), path, value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("error.code", 404),
        ("error.param", GONE),
        ("error.type", None),
        ("error.message", None),
        ("error", "no"),
    ],
)
def test_an_error_that_is_none(path: str, value: object) -> None:
    refused(lambda: check_error(spoilt(answers.error(), path, value)), path, value)
    refused(lambda: check_chunk(CHAT, spoilt(answers.error(), path, value)), path, value)


def refused(check: Callable[[], None], path: str, value: object) -> None:
    """In a message that says where, and if something is missing what."""
    where, _, missing = path.rpartition(".")
    with pytest.raises(Violation) as caught:
        check()
    expected = f'  {where or "it"}: "{missing}" is a required' if value is GONE else f"  {path}"
    assert f"\n{expected}" in str(caught.value)


@pytest.mark.parametrize("path", ["/v1/responses", "/v1", "/v1/model"])
def test_what_the_schema_does_not_know(path: str) -> None:
    for check in (check_response, check_chunk):
        with pytest.raises(Violation, match="no such answer"):
            check(path, {})


def test_a_chunk_of_a_text_may_be_unfinished() -> None:
    check_chunk(TEXT, spoilt(answers.completion(), "choices.0.finish_reason", None))


@pytest.mark.parametrize(
    ("path", "value"),
    [("choices.0.finish_reason", GONE), ("choices.0.finish_reason", "eos"), ("usage", None)],
)
def test_a_chunk_of_a_text_is_an_answer_else(path: str, value: object) -> None:
    refused(lambda: check_chunk(TEXT, spoilt(answers.completion(), path, value)), path, value)


@pytest.mark.parametrize("check", [check_response, check_chunk])
@pytest.mark.parametrize("name", ["token_logprobs", "top_logprobs"])
def test_the_first_echoed_token_may_have_no_logprob(check: Callable[..., None], name: str) -> None:
    answer, asked = answers.completion(), {"echo": True}
    entry = answer["choices"][0]["logprobs"][name]
    entry.append(entry[0])
    check(TEXT, spoilt(answer, f"choices.0.logprobs.{name}.0", None), asked)
    where = f"choices.0.logprobs.{name}.1"
    refused(lambda: check(TEXT, spoilt(answer, where, None), asked), where, None)
    refused(lambda: check(TEXT, answer, {"echo": False}), f"choices.0.logprobs.{name}.0", None)


def test_vectors_are_in_the_form_that_was_asked_for() -> None:
    asked = {"encoding_format": "base64"}
    check_response(EMBEDDINGS, spoilt(answers.embeddings(), "data.0.embedding", "AAAAPw=="), asked)
    refused(lambda: check_response(EMBEDDINGS, answers.embeddings(), asked), "data.0.embedding", None)
