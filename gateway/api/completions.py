"""``POST /v1/completions``"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

import msgspec
from litestar import Request, post
from litestar.di import NamedDependency
from litestar.types import ASGIApp
from msgspec import UNSET

from engine import Delta, Engine, GenerateRequest, Grammar
from gateway.api.constraints import asked_constraint, compile_constraint
from gateway.api.decode import decode_body
from gateway.api.generating import Generating
from gateway.api.job import Choice, Heading, Job
from gateway.api.logprobs import TextLogprobWriter, echoed_logprobs
from gateway.api.openapi.described import described
from gateway.api.prompt_logprobs import check_prompt_logprobs, wire_prompt_logprobs
from gateway.api.prompts import (
    Prompt,
    most_tokens,
    open_engine,
    room_for_answer,
    split_prompts,
    token_ids,
)
from gateway.api.raw import encoded
from gateway.api.sampling import check_generation, keep_alive_seconds, refuse, sampling_params
from gateway.api.schema.completions import Completion, CompletionChoice, CompletionRequest
from gateway.api.schema.generation import ChunkUsage, StreamOptions, Usage, Wake
from gateway.api.schema.logprobs import PromptLogprobs, TextLogprobs
from gateway.api.spelling import Spelling
from gateway.config import ModelConfig, ServerConfig
from gateway.errors import InvalidRequest
from gateway.fleet import Fleet

MAX_CHOICES: Final = 1024
"""Of all prompts of a request together."""
DEFAULT_MAX_TOKENS: Final = 16
"""OpenAI's, for this endpoint alone."""

_DECODER = msgspec.json.Decoder(CompletionRequest)


@post(
    "/v1/completions",
    status_code=200,
    opt=described(
        takes=CompletionRequest,
        example={"model": "demo-a", "prompt": "A dormouse is"},
        answers=Completion,
        streams=Completion,
        fails=(429, 503),
    ),
)
async def completions(
    request: Request[Any, Any, Any],
    fleet: NamedDependency[Fleet],
    server: NamedDependency[ServerConfig],
) -> ASGIApp:
    """Continue texts, or lists of token ids."""
    wanted = await decode_body(request, _DECODER)
    check(wanted)
    heading = Heading.of("cmpl", fleet.resolve(wanted.model).name)
    preparing, waking = partial(prepare, wanted, fleet, heading), partial(wake_chunk, heading)
    return Generating(wanted, heading, preparing, waking, fleet, stall_timeout=server.stall_timeout)


def check(request: CompletionRequest) -> None:
    check_generation(request)
    if request.max_tokens == 0 and not request.echo:
        raise InvalidRequest("max_tokens: Expected `int` >= 1, or 0 with echo", param="max_tokens")
    refuse(
        best_of=(request.best_of or 0) > (request.n or 1),
        suffix=bool(request.suffix),
    )


async def prepare(request: CompletionRequest, fleet: Fleet, heading: Heading) -> Job:
    model = fleet.resolve(request.model)
    keep_alive = keep_alive_seconds(request.keep_alive)
    prompts = split_prompts(request.prompt, param="prompt", most=MAX_CHOICES)
    if len(prompts) * (request.n or 1) > MAX_CHOICES:
        raise InvalidRequest(f"{len(prompts)} prompts of n choices are more than {MAX_CHOICES}", param="n")
    engine = await open_engine(fleet, model)
    most = most_tokens(engine.info, request.truncate_prompt_tokens)
    prompt_ids = [await token_ids(engine, prompt, param="prompt", most=most) for prompt in prompts]
    _check_logprobs(request, sum(map(len, prompt_ids)))
    grammar = await compile_constraint(await asyncio.to_thread(asked_constraint, request), engine)
    return Job(
        model=model.name,
        engine=engine,
        requests=tuple(_generate_request(request, model, engine, ids, grammar) for ids in prompt_ids),
        format=TextFormat(
            heading, engine, request, prompt_ids, _echoed(request, prompts, prompt_ids, engine)
        ),
        stream_options=request.stream_options or StreamOptions(),
        keep_alive=keep_alive,
    )


def _check_logprobs(request: CompletionRequest, tokens: int) -> None:
    """``tokens``: of all prompts."""
    n = request.n or 1
    check_prompt_logprobs(request.prompt_logprobs, tokens=tokens, n=n)
    check_prompt_logprobs(_echoed_logprobs(request), tokens=tokens, n=n, param="logprobs")


def _echoed_logprobs(request: CompletionRequest) -> int | None:
    """How many of the most likely tokens beside each of the prompt's, where it is echoed with them."""
    if not request.echo or request.logprobs is None:
        return None
    return max(request.logprobs, request.prompt_logprobs or 0)


def _generate_request(
    request: CompletionRequest,
    model: ModelConfig,
    engine: Engine,
    prompt_ids: Sequence[int],
    grammar: Grammar | None,
) -> GenerateRequest:
    max_tokens = room_for_answer(engine.info, len(prompt_ids), request.max_tokens, param="prompt")
    if request.max_tokens is None:
        max_tokens = min(max_tokens, DEFAULT_MAX_TOKENS)
    sampling = sampling_params(
        request, model, engine.info, max_tokens=max_tokens, grammar=grammar, logprobs=request.logprobs
    )
    if (echoed := _echoed_logprobs(request)) is not None:
        sampling = replace(sampling, prompt_logprobs=echoed)
    return GenerateRequest(prompt_ids=prompt_ids, sampling=sampling, n=request.n or 1)


def _echoed(
    request: CompletionRequest, prompts: list[Prompt], prompt_ids: list[list[int]], engine: Engine
) -> list[str]:
    if not request.echo:
        return [""] * len(prompts)
    whole = request.truncate_prompt_tokens is None
    return [
        prompt if isinstance(prompt, str) and whole else engine.decode(ids)
        for prompt, ids in zip(prompts, prompt_ids, strict=True)
    ]


def wake_chunk(heading: Heading, wake: Wake, usage: ChunkUsage) -> Completion:
    return Completion(
        id=heading.id,
        created=heading.created,
        model=heading.model,
        choices=[],
        usage=UNSET if usage is None else usage,
        wake=wake,
    )


class TextFormat:
    """The shapes of a text completion; ``prefixes``: what the choices of each prompt begin with."""

    def __init__(
        self,
        heading: Heading,
        engine: Engine,
        request: CompletionRequest,
        prompt_ids: list[list[int]],
        prefixes: list[str],
    ) -> None:
        self._heading = heading
        self._spelling = Spelling(engine)
        self._request = request
        self._prompt_ids = prompt_ids
        self._prefixes = prefixes
        self._writers: dict[int, TextLogprobWriter] = {}
        """Of each choice's log probabilities."""
        self._echoes: dict[int, TextLogprobs] = {}
        """Of each prompt's."""

    def opening(self, usage: ChunkUsage) -> Iterator[Completion]:
        for index in range(len(self._prefixes) * self._n):
            if prefix := self._prefixes[index // self._n]:
                yield self._completion([CompletionChoice(index=index, text=prefix)], usage)

    def chunks(self, delta: Delta, usage: ChunkUsage) -> Iterator[Completion]:
        writer = self._writer(delta)
        logprobs = writer.take(delta) if writer else None
        if delta.text or delta.finish_reason is not None:
            choice = CompletionChoice(
                index=delta.index, text=delta.text, finish_reason=delta.finish_reason, logprobs=logprobs
            )
            yield self._completion([choice], usage)

    def usage_chunk(self, usage: Usage) -> Completion:
        return self._completion([], usage)

    def whole(self, choices: list[Choice], usage: Usage) -> Completion:
        wired: list[CompletionChoice] = []
        for first in range(0, len(choices), self._n):
            prompt_logprobs = self._prompt_logprobs(choices[first])
            wired += [
                encoded(self._whole_choice(index, choices[index], prompt_logprobs))
                for index in range(first, first + self._n)
            ]
        return self._completion(wired, usage)

    @property
    def _n(self) -> int:
        """Choices of each prompt."""
        return self._request.n or 1

    def _whole_choice(
        self, index: int, choice: Choice, prompt_logprobs: PromptLogprobs | None
    ) -> CompletionChoice:
        writer = self._writer(choice.deltas[0]) if choice.deltas else None
        return CompletionChoice(
            index=index,
            text=self._prefixes[index // self._n] + choice.text,
            finish_reason=choice.finish_reason,
            logprobs=writer.whole(choice.deltas) if writer else None,
            prompt_logprobs=prompt_logprobs,
        )

    def _writer(self, delta: Delta) -> TextLogprobWriter | None:
        """Of the choice that ``delta`` is of."""
        if self._request.logprobs is None:
            return None
        prompt = delta.index // self._n
        if self._request.echo and delta.prompt_logprobs is not None:
            self._echoes[prompt] = echoed_logprobs(
                self._spelling, self._prompt_ids[prompt], delta.prompt_logprobs, self._prefixes[prompt]
            )
        if delta.index not in self._writers:
            self._writers[delta.index] = TextLogprobWriter(
                self._spelling, self._prompt_ids[prompt], self._prefixes[prompt], self._echoes.get(prompt)
            )
        return self._writers[delta.index]

    def _prompt_logprobs(self, first: Choice) -> PromptLogprobs | None:
        if self._request.prompt_logprobs is None:
            return None
        return wire_prompt_logprobs(self._spelling, first.prompt_logprobs or ())

    def _completion(self, choices: list[CompletionChoice], usage: ChunkUsage) -> Completion:
        return Completion(
            id=self._heading.id,
            created=self._heading.created,
            model=self._heading.model,
            choices=choices,
            usage=UNSET if usage is None else usage,
        )
