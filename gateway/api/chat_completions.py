"""``POST /v1/chat/completions``"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from functools import partial
from time import time
from typing import Any

import msgspec
from litestar import Request, post
from litestar.di import NamedDependency
from litestar.types import ASGIApp

from engine import Delta, Engine, GenerateRequest, ModelInfo
from gateway.api.constraints import compile_constraint
from gateway.api.decode import decode_body
from gateway.api.generating import Generating
from gateway.api.job import Choice, Job
from gateway.api.logprobs import ChatLogprobWriter, wire_prompt_logprobs
from gateway.api.prompts import encode, open_engine, room_for_answer
from gateway.api.sampling import check_generation, keep_alive_seconds, refuse, sampling_params
from gateway.api.schema.chat import (
    AnswerMessage,
    ChatChoice,
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionRequest,
    ChoiceDelta,
    ChunkChoice,
)
from gateway.api.schema.generation import ChunkUsage, StreamOptions, Usage
from gateway.api.schema.logprobs import ChatLogprobs
from gateway.chat.messages import message_text
from gateway.chat.template import compile_template
from gateway.config import ModelConfig, ServerConfig
from gateway.errors import InvalidRequest
from gateway.fleet import Fleet

_DECODER = msgspec.json.Decoder(ChatCompletionRequest)


@post("/v1/chat/completions", status_code=200)
async def chat_completions(
    request: Request[Any, Any, Any],
    fleet: NamedDependency[Fleet],
    server: NamedDependency[ServerConfig],
) -> ASGIApp:
    wanted = await decode_body(request, _DECODER)
    check(wanted)
    return Generating(partial(prepare, wanted, fleet), fleet, stall_timeout=server.stall_timeout)


def check(request: ChatCompletionRequest) -> None:
    check_generation(request)
    if request.continue_final_message and request.add_generation_prompt:
        raise InvalidRequest(
            "continue_final_message and add_generation_prompt exclude each other",
            param="continue_final_message",
        )
    if request.top_logprobs and not request.logprobs:
        raise InvalidRequest("top_logprobs needs logprobs to be true", param="top_logprobs")
    refuse(
        tools=bool(request.tools) and request.tool_choice != "none",
        tool_choice=request.tool_choice not in (None, "none", "auto"),
        functions=bool(request.functions),
    )


async def prepare(request: ChatCompletionRequest, fleet: Fleet) -> Job:
    model = fleet.resolve(request.model)
    keep_alive = keep_alive_seconds(request.keep_alive)
    engine = await open_engine(fleet, model)
    messages: list[dict[str, Any]] = msgspec.to_builtins(request.messages)
    prompt = partial(render, request, messages, model, engine)
    prompt_ids = await encode(engine, prompt, param="messages", add_special_tokens=False)
    max_tokens = _max_tokens(request, engine.info, len(prompt_ids))
    grammar = await compile_constraint(request, engine)
    logprobs = (request.top_logprobs or 0) if request.logprobs else None
    sampling = sampling_params(
        request, model, engine.info, max_tokens=max_tokens, grammar=grammar, logprobs=logprobs
    )
    return Job(
        model=model.name,
        engine=engine,
        requests=(GenerateRequest(prompt_ids=prompt_ids, sampling=sampling, n=request.n or 1),),
        format=ChatFormat(
            model.name,
            engine,
            n=request.n or 1,
            prefix=_echoed(request, messages),
            logprobs=logprobs is not None,
        ),
        stream=bool(request.stream),
        stream_options=request.stream_options or StreamOptions(),
        keep_alive=keep_alive,
    )


def render(
    request: ChatCompletionRequest, messages: list[dict[str, Any]], model: ModelConfig, engine: Engine
) -> str:
    source = model.chat_template or engine.info.chat_template
    if source is None:
        raise InvalidRequest(
            f"the model {model.name!r} has no chat template: use /v1/completions, or configure one",
            param="model",
        )
    continued = bool(request.continue_final_message)
    return compile_template(source).render(
        messages,
        special_tokens=engine.info.special_tokens,
        add_generation_prompt=not continued and request.add_generation_prompt is not False,
        continue_final_message=continued,
        variables=request.chat_template_kwargs,
    )


def _max_tokens(request: ChatCompletionRequest, info: ModelInfo, prompt_tokens: int) -> int:
    """OpenAI's newer word goes before its older one."""
    wanted, wanted_by = request.max_completion_tokens, "max_completion_tokens"
    if wanted is None:
        wanted, wanted_by = request.max_tokens, "max_tokens"
    return room_for_answer(info, prompt_tokens, wanted, param="messages", wanted_by=wanted_by)


def _echoed(request: ChatCompletionRequest, messages: list[dict[str, Any]]) -> str:
    """With ``echo`` an answer that continues a message begins with it."""
    return message_text(messages[-1]) if request.echo and request.continue_final_message else ""


class ChatFormat:
    """The shapes of a chat completion."""

    def __init__(
        self, model: str, engine: Engine, *, n: int = 1, prefix: str = "", logprobs: bool = False
    ) -> None:
        self._id = f"chatcmpl-{uuid.uuid4().hex}"
        self._created = int(time())
        self._model = model
        self._n = n
        self._prefix = prefix
        self._engine = engine
        self._logprobs = ChatLogprobWriter(engine) if logprobs else None

    def opening(self, usage: ChunkUsage) -> Iterator[ChatCompletionChunk]:
        for index in range(self._n):
            yield self._chunk(index, ChoiceDelta(role="assistant", content=""), usage)
            if self._prefix:
                yield self._chunk(index, ChoiceDelta(content=self._prefix), usage)

    def chunks(self, delta: Delta, usage: ChunkUsage) -> Iterator[ChatCompletionChunk]:
        logprobs = self._logprobs.take(delta) if self._logprobs else None
        if delta.text or (logprobs and logprobs.content):
            yield self._chunk(delta.index, ChoiceDelta(content=delta.text), usage, logprobs)
        if delta.finish_reason is not None:
            finish = ChunkChoice(index=delta.index, delta=ChoiceDelta(), finish_reason=delta.finish_reason)
            yield self._chunk_of([finish], usage)

    def usage_chunk(self, usage: Usage) -> ChatCompletionChunk:
        return self._chunk_of([], usage)

    def whole(self, choices: list[Choice], usage: Usage) -> ChatCompletion:
        return ChatCompletion(
            id=self._id,
            created=self._created,
            model=self._model,
            choices=[
                ChatChoice(
                    index=index,
                    message=AnswerMessage(content=self._prefix + choice.text),
                    finish_reason=choice.finish_reason,
                    logprobs=self._logprobs.whole(choice.deltas) if self._logprobs else None,
                )
                for index, choice in enumerate(choices)
            ],
            usage=usage,
            prompt_logprobs=wire_prompt_logprobs(self._engine, choices[0].prompt_logprobs),
        )

    def _chunk(
        self, index: int, delta: ChoiceDelta, usage: ChunkUsage, logprobs: ChatLogprobs | None = None
    ) -> ChatCompletionChunk:
        return self._chunk_of([ChunkChoice(index=index, delta=delta, logprobs=logprobs)], usage)

    def _chunk_of(self, choices: list[ChunkChoice], usage: ChunkUsage) -> ChatCompletionChunk:
        return ChatCompletionChunk(
            id=self._id, created=self._created, model=self._model, choices=choices, usage=usage
        )
