"""``POST /v1/chat/completions``"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import msgspec
from litestar import Request, post
from litestar.di import NamedDependency
from litestar.types import ASGIApp

from engine import GenerateRequest, ModelInfo
from gateway.api.chat_format import ChatFormat, wake_chunk
from gateway.api.chat_prompt import read_chat
from gateway.api.constraints import compile_constraint
from gateway.api.decode import decode_body
from gateway.api.generating import Generating
from gateway.api.job import Heading, Job
from gateway.api.logprobs import ChatLogprobWriter
from gateway.api.openapi.described import described
from gateway.api.prompt_logprobs import check_prompt_logprobs
from gateway.api.prompts import open_engine, room_for_answer
from gateway.api.sampling import check_generation, keep_alive_seconds, sampling_params
from gateway.api.schema.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionRequest
from gateway.api.schema.generation import StreamOptions
from gateway.api.spelling import Spelling
from gateway.api.tools import offered_tools
from gateway.chat.messages import message_text
from gateway.config import ServerConfig
from gateway.errors import InvalidRequest
from gateway.fleet import Fleet

_DECODER = msgspec.json.Decoder(ChatCompletionRequest)


@post(
    "/v1/chat/completions",
    status_code=200,
    opt=described(
        takes=ChatCompletionRequest,
        example={"model": "demo-a", "messages": [{"role": "user", "content": "What is Dormouse?"}]},
        answers=ChatCompletion,
        streams=ChatCompletionChunk,
        fails=(429, 503),
    ),
)
async def chat_completions(
    request: Request[Any, Any, Any],
    fleet: NamedDependency[Fleet],
    server: NamedDependency[ServerConfig],
) -> ASGIApp:
    """Answer the last message of a conversation."""
    wanted = await decode_body(request, _DECODER)
    check(wanted)
    heading = Heading.of("chatcmpl", fleet.resolve(wanted.model).name)
    preparing, waking = partial(prepare, wanted, fleet, heading), partial(wake_chunk, heading)
    return Generating(wanted, heading, preparing, waking, fleet, stall_timeout=server.stall_timeout)


def check(request: ChatCompletionRequest) -> None:
    check_generation(request)
    if request.continue_final_message and request.add_generation_prompt:
        raise InvalidRequest(
            "continue_final_message and add_generation_prompt exclude each other",
            param="continue_final_message",
        )
    if request.top_logprobs and not request.logprobs:
        raise InvalidRequest("top_logprobs needs logprobs to be true", param="top_logprobs")
    offered_tools(request)
    if request.functions or request.function_call not in (None, "none", "auto"):
        raise InvalidRequest("functions are not supported: offer them as tools", param="functions")


async def prepare(request: ChatCompletionRequest, fleet: Fleet, heading: Heading) -> Job:
    model = fleet.resolve(request.model)
    keep_alive = keep_alive_seconds(request.keep_alive)
    engine = await open_engine(fleet, model)
    prompt = await asyncio.to_thread(read_chat, request, model, engine)
    check_prompt_logprobs(request.prompt_logprobs, tokens=len(prompt.token_ids))
    logprobs = (request.top_logprobs or 0) if request.logprobs else None
    sampling = sampling_params(
        request,
        model,
        engine.info,
        max_tokens=_max_tokens(request, engine.info, len(prompt.token_ids)),
        grammar=await compile_constraint(prompt.asked, engine),
        logprobs=logprobs,
        shown_tokens=prompt.shown_tokens,
    )
    n = request.n or 1
    spelling = Spelling(engine, prompt.shown_tokens)
    return Job(
        model=model.name,
        engine=engine,
        requests=(GenerateRequest(prompt_ids=prompt.token_ids, sampling=sampling, n=n),),
        format=ChatFormat(
            heading,
            spelling,
            [prompt.answer() for _ in range(n)],
            prefix=_echoed(request),
            logprobs=None if logprobs is None else ChatLogprobWriter(spelling, prompt.token_ids),
        ),
        stream_options=request.stream_options or StreamOptions(),
        keep_alive=keep_alive,
    )


def _max_tokens(request: ChatCompletionRequest, info: ModelInfo, prompt_tokens: int) -> int:
    """OpenAI's newer word goes before its older one."""
    wanted, wanted_by = request.max_completion_tokens, "max_completion_tokens"
    if wanted is None:
        wanted, wanted_by = request.max_tokens, "max_tokens"
    return room_for_answer(info, prompt_tokens, wanted, param="messages", wanted_by=wanted_by)


def _echoed(request: ChatCompletionRequest) -> str:
    """With ``echo`` an answer that continues a message begins with it."""
    if not (request.echo and request.continue_final_message):
        return ""
    return message_text(msgspec.to_builtins(request.messages[-1]))
