"""Answers as the schema wants them, to be spoilt."""

from __future__ import annotations

from typing import Any

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"


def completion() -> dict[str, Any]:
    logprobs = {"tokens": ["a"], "token_logprobs": [-1.0], "top_logprobs": [{"a": -1.0}], "text_offset": [0]}
    choice = {"index": 0, "text": "a", "finish_reason": "stop", "logprobs": logprobs}
    return {"id": "1", "object": "text_completion", "created": 1, "model": "m", "choices": [choice]}


def chat() -> dict[str, Any]:
    message = {"role": "assistant", "content": "a", "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    answer = {"id": "1", "object": "chat.completion", "created": 1, "model": "m"}
    return {**answer, "choices": [choice], "usage": usage}


def chunk() -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": "a"}, "finish_reason": None, "logprobs": None}
    answer = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return {**answer, "choices": [choice], "usage": None}


def embeddings() -> dict[str, Any]:
    data = [{"object": "embedding", "index": 0, "embedding": [0.5, -0.5]}]
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    return {"object": "list", "model": "m", "data": data, "usage": usage}


def model() -> dict[str, Any]:
    return {"id": "m", "object": "model", "created": 1, "owned_by": "us"}


def error() -> dict[str, Any]:
    return {"error": {"message": "no", "type": "server_error", "param": None, "code": None}}
