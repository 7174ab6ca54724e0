"""What a model can serve of a request for text."""

from __future__ import annotations

from dataclasses import replace

from engine.grammar import CompiledGrammar
from engine.types import GenerateRequest, ModelInfo, RequestError


def check_request(info: ModelInfo, request: GenerateRequest) -> None:
    """Raises RequestError for what this model can never serve."""
    prompt, length = request.prompt_ids, info.max_model_len
    if info.kind != "generate":
        raise RequestError("this model makes embeddings and generates no text", param="model")
    if not prompt:
        raise RequestError("the prompt is empty", param="prompt")
    if len(prompt) + min(1, request.sampling.max_tokens) > length:
        raise RequestError(
            f"the prompt has {len(prompt)} tokens, the model's context is {length} tokens",
            param="messages",
            code="context_length_exceeded",
        )
    if not all(0 <= token < info.vocab_size for token in prompt):
        raise RequestError("a token id of the prompt is out of vocabulary", param="prompt")
    if not all(0 <= token < info.vocab_size for token in request.sampling.logit_bias):
        raise RequestError("a token id is out of vocabulary", param="logit_bias")
    if not isinstance(request.sampling.grammar, CompiledGrammar | None):
        raise RequestError("the grammar was not compiled by this engine", param="grammar")


def within_reach(info: ModelInfo, request: GenerateRequest) -> GenerateRequest:
    """Without what can never come: tokens past the context, stop tokens out of vocabulary."""
    sampling = request.sampling
    room = info.max_model_len - len(request.prompt_ids)
    stops = frozenset(token for token in sampling.stop_token_ids if 0 <= token < info.vocab_size)
    sampling = replace(sampling, max_tokens=min(sampling.max_tokens, room), stop_token_ids=stops)
    return replace(request, sampling=sampling)
