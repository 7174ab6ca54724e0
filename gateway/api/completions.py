"""``POST /v1/completions``"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from functools import partial
from time import time
from typing import Any, Final

import msgspec
from litestar import Request, post
from litestar.di import NamedDependency
from litestar.types import ASGIApp

from engine import Delta, Engine, GenerateRequest
from gateway.api.decode import decode_body
from gateway.api.generating import Generating
from gateway.api.job import Choice, Job
from gateway.api.prompts import encode, open_engine, room_for_answer
from gateway.api.sampling import check_generation, keep_alive_seconds, refuse, sampling_params
from gateway.api.schema.completions import Completion, CompletionChoice, CompletionRequest
from gateway.api.schema.generation import ChunkUsage, StreamOptions, Usage
from gateway.config import ModelConfig, ServerConfig
from gateway.errors import InvalidRequest
from gateway.fleet import Fleet

MAX_PROMPTS: Final = 1024
DEFAULT_MAX_TOKENS: Final = 16
"""OpenAI's, for this endpoint alone."""

Prompt = str | list[int]

_DECODER = msgspec.json.Decoder(CompletionRequest)


@post("/v1/completions", status_code=200)
async def completions(
    request: Request[Any, Any, Any],
    fleet: NamedDependency[Fleet],
    server: NamedDependency[ServerConfig],
) -> ASGIApp:
    wanted = await decode_body(request, _DECODER)
    check(wanted)
    return Generating(partial(prepare, wanted, fleet), fleet, stall_timeout=server.stall_timeout)


def check(request: CompletionRequest) -> None:
    check_generation(request)
    refuse(
        logprobs=request.logprobs is not None,
        best_of=(request.best_of or 1) > 1,
        suffix=bool(request.suffix),
    )


async def prepare(request: CompletionRequest, fleet: Fleet) -> Job:
    model = fleet.resolve(request.model)
    keep_alive = keep_alive_seconds(request.keep_alive)
    prompts = split_prompts(request.prompt)
    engine = await open_engine(fleet, model)
    prompt_ids = [await _token_ids(engine, prompt) for prompt in prompts]
    return Job(
        model=model.name,
        requests=tuple(_generate_request(request, model, engine, ids) for ids in prompt_ids),
        format=TextFormat(model.name, prefixes=_echoed(request, prompts, engine)),
        stream=bool(request.stream),
        stream_options=request.stream_options or StreamOptions(),
        keep_alive=keep_alive,
    )


def split_prompts(prompt: str | list[str | int | list[int]]) -> list[Prompt]:
    """The four forms of ``prompt`` as a list of prompts. Raises InvalidRequest for a mixture."""
    if isinstance(prompt, str):
        return [prompt]
    if all(isinstance(item, int) for item in prompt):
        return [[item for item in prompt if isinstance(item, int)]]
    prompts = [item for item in prompt if not isinstance(item, int)]
    if len({type(item) for item in prompt}) > 1:
        raise InvalidRequest("prompt mixes texts and token ids", param="prompt")
    if len(prompts) > MAX_PROMPTS:
        raise InvalidRequest(f"prompt has more than {MAX_PROMPTS} entries", param="prompt")
    return prompts


async def _token_ids(engine: Engine, prompt: Prompt) -> list[int]:
    if isinstance(prompt, str):
        ids = await encode(engine, lambda: prompt, param="prompt", add_special_tokens=True) if prompt else []
    else:
        ids = prompt
        room_for_answer(engine.info, len(ids), None, param="prompt")
        if any(not 0 <= token < engine.info.vocab_size for token in ids):
            raise InvalidRequest(
                f"prompt has a token id that is out of vocabulary: 0 to {engine.info.vocab_size - 1}",
                param="prompt",
            )
    if not ids:
        raise InvalidRequest("prompt is empty", param="prompt")
    return ids


def _generate_request(
    request: CompletionRequest, model: ModelConfig, engine: Engine, prompt_ids: Sequence[int]
) -> GenerateRequest:
    max_tokens = room_for_answer(engine.info, len(prompt_ids), request.max_tokens, param="prompt")
    if request.max_tokens is None:
        max_tokens = min(max_tokens, DEFAULT_MAX_TOKENS)
    sampling = sampling_params(request, model, engine.info, max_tokens=max_tokens)
    return GenerateRequest(prompt_ids=prompt_ids, sampling=sampling)


def _echoed(request: CompletionRequest, prompts: list[Prompt], engine: Engine) -> list[str]:
    if not request.echo:
        return [""] * len(prompts)
    return [prompt if isinstance(prompt, str) else engine.decode(prompt) for prompt in prompts]


class TextFormat:
    """The shapes of a text completion; ``prefixes``: what each choice begins with."""

    def __init__(self, model: str, *, prefixes: list[str]) -> None:
        self._id = f"cmpl-{uuid.uuid4().hex}"
        self._created = int(time())
        self._model = model
        self._prefixes = prefixes

    def opening(self, usage: ChunkUsage) -> Iterator[Completion]:
        for index, prefix in enumerate(self._prefixes):
            if prefix:
                yield self._completion([CompletionChoice(index=index, text=prefix)], usage)

    def chunks(self, delta: Delta, usage: ChunkUsage) -> Iterator[Completion]:
        if delta.text or delta.finish_reason is not None:
            choice = CompletionChoice(index=delta.index, text=delta.text, finish_reason=delta.finish_reason)
            yield self._completion([choice], usage)

    def usage_chunk(self, usage: Usage) -> Completion:
        return self._completion([], usage)

    def whole(self, choices: list[Choice], usage: Usage) -> Completion:
        wired = [
            CompletionChoice(index=index, text=prefix + choice.text, finish_reason=choice.finish_reason)
            for index, (prefix, choice) in enumerate(zip(self._prefixes, choices, strict=True))
        ]
        return self._completion(wired, usage)

    def _completion(self, choices: list[CompletionChoice], usage: ChunkUsage) -> Completion:
        return Completion(id=self._id, created=self._created, model=self._model, choices=choices, usage=usage)
