"""vLLM's ``POST /tokenize``, ``POST /detokenize`` and ``GET /tokenizer_info``. They wake nothing, and serve
models of any kind."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec
from litestar import Request, get, post
from litestar.di import NamedDependency
from litestar.params import FromQuery

from engine import Engine, ModelInfo
from gateway.api.chat_completions import check
from gateway.api.chat_prompt import render, template_of, template_variables
from gateway.api.decode import decode_body
from gateway.api.dialect import dialect_of
from gateway.api.openapi.described import described
from gateway.api.prompts import check_vocabulary, open_engine
from gateway.api.schema.chat import ChatCompletionRequest
from gateway.api.schema.tokenize import (
    DetokenizeRequest,
    DetokenizeResponse,
    TokenizeRequest,
    TokenizeResponse,
)
from gateway.api.tools import offered_tools
from gateway.config import ModelConfig
from gateway.errors import InvalidRequest
from gateway.fleet import Fleet

MAX_SIZE: Final = 2**20
"""Bytes of a text, or tokens, that may be more than the context holds."""

_TOKENIZE = msgspec.json.Decoder(TokenizeRequest)
_DETOKENIZE = msgspec.json.Decoder(DetokenizeRequest)


@post(
    "/tokenize",
    status_code=200,
    opt=described(
        takes=TokenizeRequest, example={"model": "demo-a", "prompt": "A dormouse is"}, fails=(503,)
    ),
)
async def tokenize(request: Request[Any, Any, Any], fleet: NamedDependency[Fleet]) -> TokenizeResponse:
    """The tokens of a text, or of a conversation as the chat template writes it."""
    wanted = await decode_body(request, _TOKENIZE)
    if (wanted.prompt is None) == (wanted.messages is None):
        raise InvalidRequest("either prompt or messages must be given", param="prompt")
    model = _named_or_only(fleet, wanted.model)
    chat = _as_chat(wanted, model) if wanted.messages else None
    engine = await open_engine(fleet, model, kind=None)
    return await asyncio.to_thread(_tokenize, wanted, chat, model, engine)


@post(
    "/detokenize",
    status_code=200,
    opt=described(takes=DetokenizeRequest, example={"model": "demo-a", "tokens": [72, 105]}, fails=(503,)),
)
async def detokenize(request: Request[Any, Any, Any], fleet: NamedDependency[Fleet]) -> DetokenizeResponse:
    """The text of tokens."""
    wanted = await decode_body(request, _DETOKENIZE)
    engine = await open_engine(fleet, _named_or_only(fleet, wanted.model), kind=None)
    return await asyncio.to_thread(_detokenize, wanted.tokens, engine)


@get("/tokenizer_info", opt=described(fails=(503,)))
async def tokenizer_info(
    fleet: NamedDependency[Fleet], model: FromQuery[str | None] = None
) -> dict[str, str | int | None]:
    """``eos_token`` and the like, by the names that tokenizer_config.json has."""
    config = _named_or_only(fleet, model)
    info = (await open_engine(fleet, config, kind=None)).info
    template = config.chat_template or info.chat_template
    return {**info.special_tokens, "chat_template": template, "model_max_length": info.max_model_len}


def _named_or_only(fleet: Fleet, name: str | None) -> ModelConfig:
    if name is not None:
        return fleet.resolve(name)
    models = fleet.config.models
    if len(models) != 1:
        names = ", ".join(model.name for model in models)
        raise InvalidRequest(f"model must be given, since there are several: {names}", param="model")
    return models[0]


def _as_chat(request: TokenizeRequest, model: ModelConfig) -> ChatCompletionRequest:
    """The request for an answer to the same conversation. Raises InvalidRequest as that would."""
    chat = ChatCompletionRequest(
        model=model.name,
        messages=request.messages or [],
        add_generation_prompt=request.add_generation_prompt,
        continue_final_message=request.continue_final_message,
        chat_template_kwargs=request.chat_template_kwargs,
        tools=request.tools,
    )
    check(chat)
    return chat


def _tokenize(
    request: TokenizeRequest, chat: ChatCompletionRequest | None, model: ModelConfig, engine: Engine
) -> TokenizeResponse:
    if chat is None:
        text, special = request.prompt or "", request.add_special_tokens is not False
    else:
        variables = template_variables(chat, constrained=False)
        template = template_of(model, engine)
        dialect = dialect_of(model, template)
        text = render(template, dialect, chat, engine, offered_tools(chat), variables)
        special = bool(request.add_special_tokens)
    _check_size(engine.info, len(text.encode()), "bytes", "prompt" if chat is None else "messages")
    tokens = engine.encode(text, add_special_tokens=special)
    return TokenizeResponse(
        count=len(tokens),
        max_model_len=engine.info.max_model_len,
        tokens=tokens,
        token_strs=[engine.token(token) for token in tokens] if request.return_token_strs else None,
    )


def _detokenize(tokens: list[int], engine: Engine) -> DetokenizeResponse:
    _check_size(engine.info, len(tokens), "tokens", "tokens")
    check_vocabulary(engine.info, tokens, param="tokens")
    return DetokenizeResponse(prompt=engine.decode(tokens, skip_special_tokens=False))


def _check_size(info: ModelInfo, size: int, unit: str, param: str) -> None:
    """Whatever may be a prompt is welcome, and what is not very much longer."""
    most = max(MAX_SIZE, info.max_model_len * info.longest_token_bytes)
    if size > most:
        raise InvalidRequest(f"{param} has {size} {unit}, and at most {most} are taken at once", param=param)
