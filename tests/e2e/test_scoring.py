"""What harnesses that score given text ask for: tokens, and the log probabilities of a prompt."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from tests.e2e.server import Server, running
from tests.engine.encoders import minilm

TEXTS = ["A dormouse sleeps.", "naïve 日本 🐭", "In the winter a small animal hibernates."]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, checkpoints: dict[str, Path]) -> Iterator[Server]:
    config = f"""
[models.tiny]
path = "{checkpoints["tiny-a"]}"
dtype = "float32"
max_model_len = 64
[models.minilm]
path = "{minilm()}"
"""
    with running(tmp_path_factory.mktemp("scoring"), config) as server:
        yield server


def post(server: Server, path: str, **body: Any) -> Any:
    response = server.http.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize("model", ["tiny", "minilm"])
def test_tokens_of_a_sleeper_are_those_of_transformers(
    server: Server, checkpoints: dict[str, Path], model: str
) -> None:
    directory = minilm() if model == "minilm" else checkpoints["tiny-a"]
    reference = PreTrainedTokenizerFast(tokenizer_file=str(directory / "tokenizer.json"))
    before = server.status(model)["state"]
    for text in TEXTS:
        for special in (True, False):
            answer = post(
                server,
                "/tokenize",
                model=model,
                prompt=text,
                add_special_tokens=special,
                return_token_strs=True,
            )
            assert answer["tokens"] == reference.encode(text, add_special_tokens=special)
            assert answer["token_strs"] == reference.convert_ids_to_tokens(answer["tokens"])
            assert answer["count"] == len(answer["tokens"])
        back = post(server, "/detokenize", model=model, tokens=answer["tokens"])["prompt"]
        assert back == reference.decode(answer["tokens"])
    assert server.status(model)["state"] == before != "awake"
    info = server.http.get(f"/tokenizer_info?model={model}").json()
    assert info["model_max_length"] == answer["max_model_len"]
    assert (info.get("eos_token"), info.get("sep_token")) == (
        ("<|end|>", None) if model == "tiny" else (None, "[SEP]")
    )


def test_a_conversation_counts_as_it_will_be_charged(server: Server) -> None:
    messages = [{"role": "user", "content": TEXTS[1]}]
    counted = post(server, "/tokenize", model="tiny", messages=messages)
    chat = post(server, "/v1/chat/completions", model="tiny", messages=messages, max_tokens=1)
    assert counted["count"] == chat["usage"]["prompt_tokens"]
    prompt = post(server, "/detokenize", model="tiny", tokens=counted["tokens"])["prompt"]
    assert prompt.startswith("user: naïve") and prompt.endswith("assistant:")


def test_batches_of_token_ids_are_scored(server: Server) -> None:
    """As a harness asks: greedy, one token, the prompt echoed with its log probabilities."""
    prompts = [post(server, "/tokenize", model="tiny", prompt=text)["tokens"] for text in TEXTS]
    how = {"model": "tiny", "temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": True}
    answer = post(server, "/v1/completions", prompt=prompts, **how)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert answer["usage"]["completion_tokens"] == 3
    for choice, ids, text in zip(answer["choices"], prompts, TEXTS, strict=True):
        logprobs = choice["logprobs"]
        assert choice["text"].startswith(text)
        assert {len(column) for column in logprobs.values()} == {len(ids) + 1}, "one is generated"
        assert logprobs["token_logprobs"][0] is logprobs["top_logprobs"][0] is None
        for token, value, top in list(zip(*list(logprobs.values())[:3], strict=True))[1:]:
            assert value <= 0 and math.isfinite(value)
            assert 1 <= len(top) <= 2 and max(top.values()) >= top[token] - 1e-6
        alone = post(server, "/v1/completions", prompt=text, **how)["choices"][0]
        assert alone["logprobs"]["tokens"] == logprobs["tokens"]
        assert alone["logprobs"]["token_logprobs"][1:] == pytest.approx(
            logprobs["token_logprobs"][1:], abs=1e-3
        )


def test_a_prompt_that_fills_the_context_is_scored(server: Server) -> None:
    ids = [1 + number % 100 for number in range(64)]
    how = {"model": "tiny", "logprobs": 1, "echo": True, "temperature": 0}
    whole = post(server, "/v1/completions", prompt=ids, max_tokens=0, **how)
    assert (whole["usage"]["completion_tokens"], whole["choices"][0]["finish_reason"]) == (0, "length")
    scored = whole["choices"][0]["logprobs"]["token_logprobs"]
    assert len(scored) == 64 and all(value < 0 for value in scored[1:])
    part = post(server, "/v1/completions", prompt=ids[:63], max_tokens=1, **how)
    assert part["choices"][0]["logprobs"]["token_logprobs"][1:63] == pytest.approx(scored[1:63], abs=1e-3)
    for body in ({"prompt": ids, "max_tokens": 1}, {"prompt": [*ids, 1], "max_tokens": 0}):
        refused = server.http.post("/v1/completions", json={**how, **body})
        assert refused.status_code == 400
        assert refused.json()["error"]["code"] == "context_length_exceeded"
