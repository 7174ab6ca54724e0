"""From text to token ids, and whether they fit: all of it before anything is woken."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import cast

from engine import Engine, Kind, ModelInfo
from gateway.config import ModelConfig
from gateway.errors import InvalidRequest, WaitTimeout
from gateway.fleet import Fleet

Prompt = str | list[int]

_DOES: Mapping[Kind, str] = {"generate": "generates text", "embed": "makes embeddings"}


async def open_engine(fleet: Fleet, model: ModelConfig, kind: Kind | None = "generate") -> Engine:
    """The model's engine with its tokenizer, awake or not. A download that takes too long goes on.
    Raises InvalidRequest for a model of another kind; None: any will do."""
    try:
        async with asyncio.timeout(None if math.isinf(model.max_wait) else model.max_wait):
            engine = await fleet.opened(model.name)
    except TimeoutError:
        raise WaitTimeout(f"{model.name} could not be opened in time", retry_after=5.0) from None
    if kind and engine.info.kind != kind:
        found, wanted = _DOES[engine.info.kind], _DOES[kind]
        raise InvalidRequest(f"{model.name} {found}; this route needs a model that {wanted}", param="model")
    return engine


def split_prompts(prompt: str | list[str | int | list[int]], *, param: str, most: int) -> list[Prompt]:
    """A text, token ids, or a list of either, as a list. Raises InvalidRequest for a mixture, but for one
    that begins with a token id: that may be very long, and ``token_ids`` looks at its length first."""
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt[0], int):
        return [cast("list[int]", prompt)]
    if len(prompt) > most:
        raise InvalidRequest(f"{param} has more than {most} entries", param=param)
    _check_kind(prompt, param)
    return cast("list[Prompt]", prompt)


def _check_kind(items: Sequence[object], param: str) -> None:
    """In one pass that makes no steps in Python, for there may be millions."""
    if len({*map(type, items)}) > 1:
        raise InvalidRequest(f"{param} mixes texts and token ids", param=param)


def check_vocabulary(info: ModelInfo, ids: list[int], *, param: str) -> None:
    """Raises InvalidRequest, which names the first that is not in it."""
    if not ids or (min(ids) >= 0 and max(ids) < info.vocab_size):
        return
    stranger = next(token for token in ids if not 0 <= token < info.vocab_size)
    raise InvalidRequest(
        f"{param}: token id {stranger} is out of vocabulary, which has {info.vocab_size} tokens",
        param=param,
    )


async def token_ids(engine: Engine, prompt: Prompt, *, param: str, most: int | None) -> list[int]:
    """Of a prompt of either form, ``most`` of them. Raises InvalidRequest when it is empty or cannot fit."""
    info = engine.info
    if isinstance(prompt, str):
        encoding = partial(encode_now, engine, prompt, param=param, add_special_tokens=True, most=most)
        ids = await asyncio.to_thread(encoding) if prompt else []
    else:
        ids = prompt if most is None else prompt[:most] if info.kind == "embed" else prompt[-most:]
    if not ids:
        raise InvalidRequest(f"{param} is empty", param=param)
    if len(ids) > info.max_model_len:
        raise too_long(info, f"a prompt of {len(ids)} tokens", param)
    if not isinstance(prompt, str):
        _check_kind(prompt, param)
        check_vocabulary(info, ids, param=param)
    return ids


def encode_now(
    engine: Engine, prompt: str, *, param: str, add_special_tokens: bool, most: int | None = None
) -> list[int]:
    """Blocking. Raises InvalidRequest when it cannot fit."""
    info = engine.info
    if most is None and len(prompt.encode()) > info.max_model_len * info.longest_token_bytes:
        raise too_long(info, f"a prompt of {len(prompt)} characters", param)
    return engine.encode(prompt, add_special_tokens=add_special_tokens, most=most)


def most_tokens(info: ModelInfo, truncate_prompt_tokens: int | None) -> int | None:
    """How many of a prompt's tokens are kept; None: all of them. -1 means as many as the model takes."""
    if truncate_prompt_tokens == -1:
        return info.max_model_len
    if truncate_prompt_tokens is not None and not 1 <= truncate_prompt_tokens <= info.max_model_len:
        raise InvalidRequest(
            f"truncate_prompt_tokens: Expected -1, or 1 to {info.max_model_len}",
            param="truncate_prompt_tokens",
        )
    return truncate_prompt_tokens


def room_for_answer(
    info: ModelInfo, prompt_tokens: int, wanted: int | None, *, param: str, wanted_by: str = "max_tokens"
) -> int:
    """How many tokens the answer may have: as many as wanted, else all that the context leaves.
    ``param`` has the prompt, ``wanted_by`` the wish."""
    left = info.max_model_len - prompt_tokens
    if left < (1 if wanted is None else min(wanted, 1)):
        raise too_long(info, f"a prompt of {prompt_tokens} tokens", param)
    if wanted is None:
        return left
    if wanted > left:
        raise too_long(info, f"a prompt of {prompt_tokens} tokens and an answer of {wanted}", wanted_by)
    return wanted


def too_long(info: ModelInfo, what: str, param: str) -> InvalidRequest:
    return InvalidRequest(
        f"{what} does not fit: this model's maximum context length is {info.max_model_len} tokens",
        param=param,
        code="context_length_exceeded",
    )
