"""From the fields of a request to the engine's sampling parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from engine import Grammar, ModelInfo, SamplingParams
from gateway.api.constraints import check_constraint
from gateway.api.prompts import check_vocabulary
from gateway.api.schema.generation import GenerationRequest
from gateway.config import NEVER, ModelConfig
from gateway.errors import InvalidRequest
from gateway.units import parse_duration

_YEAR: Final = 365 * 86400.0
_TOKEN_ID: Final = re.compile(r"-?[0-9]{1,19}")


def sampling_params(
    request: GenerationRequest,
    model: ModelConfig,
    info: ModelInfo,
    *,
    max_tokens: int,
    grammar: Grammar | None,
    logprobs: int | None,
    shown_tokens: frozenset[int] = frozenset(),
) -> SamplingParams:
    """Each value is the request's, else the configuration's, else the checkpoint's, else OpenAI's."""
    if (request.min_tokens or 0) > max_tokens:
        raise InvalidRequest(f"min_tokens is more than max_tokens, {max_tokens}", param="min_tokens")
    defaults = {**info.sampling_defaults, **model.sampling}
    return SamplingParams(
        max_tokens=max_tokens,
        temperature=_first(request.temperature, defaults, "temperature", 1.0),
        top_p=_first(request.top_p, defaults, "top_p", 1.0),
        top_k=max(0, int(_first(request.top_k, defaults, "top_k", 0))),
        min_p=_first(request.min_p, defaults, "min_p", 0.0),
        repetition_penalty=_first(request.repetition_penalty, defaults, "repetition_penalty", 1.0),
        presence_penalty=request.presence_penalty or 0.0,
        frequency_penalty=request.frequency_penalty or 0.0,
        logit_bias=_logit_bias(request, info),
        logprobs=logprobs,
        prompt_logprobs=request.prompt_logprobs,
        grammar=grammar,
        seed=request.seed,
        stop=(request.stop,) if isinstance(request.stop, str) else tuple(request.stop or ()),
        stop_token_ids=frozenset(request.stop_token_ids or ()),
        min_tokens=request.min_tokens or 0,
        ignore_eos=bool(request.ignore_eos),
        shown_tokens=shown_tokens,
    )


def check_generation(request: GenerationRequest) -> None:
    """What the types alone cannot say."""
    if request.stream_options is not None and not request.stream:
        raise InvalidRequest("stream_options is only allowed when stream is true", param="stream_options")
    if request.prompt_logprobs is not None and request.stream:
        raise InvalidRequest("prompt_logprobs are not available when stream is true", param="prompt_logprobs")
    check_constraint(request)


def refuse(**needed: bool) -> None:
    """Fields that a request needs and that are not supported: better a clear no than a wrong answer."""
    for param, is_needed in needed.items():
        if is_needed:
            raise InvalidRequest(f"{param} is not supported yet", param=param)


def keep_alive_seconds(value: float | str | None) -> float | None:
    """Seconds; any negative number means never. None: as configured."""
    if value is None:
        return None
    if value == "-1" or (not isinstance(value, str) and value < 0):
        return NEVER
    try:
        seconds = parse_duration(value)
    except ValueError as error:
        raise InvalidRequest(f"keep_alive: {error}", param="keep_alive") from None
    return seconds if seconds < _YEAR else NEVER


def _logit_bias(request: GenerationRequest, info: ModelInfo) -> dict[int, float]:
    asked = request.logit_bias or {}
    if len(asked) > info.vocab_size:
        message = f"logit_bias has {len(asked)} keys, and the vocabulary {info.vocab_size} tokens"
        raise InvalidRequest(message, param="logit_bias")
    if strangers := [key for key in asked if not _TOKEN_ID.fullmatch(key)]:
        named = ", ".join(map(repr, strangers))
        raise InvalidRequest(f"logit_bias has keys that are no token ids: {named}", param="logit_bias")
    bias = {int(token_id): value for token_id, value in asked.items()}
    check_vocabulary(info, list(bias), param="logit_bias")
    return bias


def _first(asked: float | None, defaults: Mapping[str, float], name: str, otherwise: float) -> float:
    return asked if asked is not None else defaults.get(name, otherwise)
