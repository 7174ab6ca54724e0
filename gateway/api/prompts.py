"""From text to token ids, and whether they fit: all of it before anything is woken."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from engine import Engine, ModelInfo
from gateway.config import ModelConfig
from gateway.errors import InvalidRequest, WaitTimeout
from gateway.fleet import Fleet


async def open_engine(fleet: Fleet, model: ModelConfig) -> Engine:
    """The model's engine with its tokenizer, awake or not. A download that takes too long goes on."""
    try:
        async with asyncio.timeout(None if math.isinf(model.max_wait) else model.max_wait):
            return await fleet.opened(model.name)
    except TimeoutError:
        raise WaitTimeout(f"{model.name} could not be opened in time", retry_after=5.0) from None


async def encode(
    engine: Engine, text: Callable[[], str], *, param: str, add_special_tokens: bool
) -> list[int]:
    """Token ids of what ``text`` makes, both off the loop. Raises InvalidRequest when it cannot fit."""
    return await asyncio.to_thread(_encode, engine, text, param, add_special_tokens)


def _encode(engine: Engine, text: Callable[[], str], param: str, add_special_tokens: bool) -> list[int]:
    prompt = text()
    info = engine.info
    if len(prompt.encode()) > info.max_model_len * info.longest_token_bytes:
        raise too_long(info, f"a prompt of {len(prompt)} characters", param)
    return engine.encode(prompt, add_special_tokens=add_special_tokens)


def room_for_answer(info: ModelInfo, prompt_tokens: int, wanted: int | None, *, param: str) -> int:
    """How many tokens the answer may have: as many as wanted, else all that the context leaves."""
    left = info.max_model_len - prompt_tokens
    if left < 1:
        raise too_long(info, f"a prompt of {prompt_tokens} tokens", param)
    if wanted is None:
        return left
    if wanted > left:
        raise too_long(info, f"a prompt of {prompt_tokens} tokens and an answer of {wanted}", param)
    return wanted


def too_long(info: ModelInfo, what: str, param: str) -> InvalidRequest:
    return InvalidRequest(
        f"{what} does not fit: this model's maximum context length is {info.max_model_len} tokens",
        param=param,
        code="context_length_exceeded",
    )
