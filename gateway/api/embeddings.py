"""``POST /v1/embeddings``"""

from __future__ import annotations

import asyncio
import time
from array import array
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import msgspec
from litestar import Request, post
from litestar.di import NamedDependency
from litestar.types import ASGIApp, Receive, Scope, Send

from engine import Engine, ModelInfo
from gateway.api.asgi import JSON
from gateway.api.client import Client
from gateway.api.decode import decode_body
from gateway.api.generating import server_timing
from gateway.api.leasing import leased
from gateway.api.openapi.described import described
from gateway.api.prompts import most_tokens, open_engine, split_prompts, token_ids
from gateway.api.raw import encoded_each
from gateway.api.sampling import keep_alive_seconds
from gateway.api.schema.embeddings import Embedding, EmbeddingList, EmbeddingRequest, EmbeddingUsage
from gateway.config import ServerConfig
from gateway.errors import InvalidRequest
from gateway.fleet import Fleet

MAX_INPUTS: Final = 2048

_DECODER = msgspec.json.Decoder(EmbeddingRequest)


@post(
    "/v1/embeddings",
    status_code=200,
    opt=described(
        takes=EmbeddingRequest,
        example={"model": "embedder", "input": ["A dormouse sleeps."]},
        answers=EmbeddingList,
        fails=(429, 503),
    ),
)
async def embeddings(
    request: Request[Any, Any, Any],
    fleet: NamedDependency[Fleet],
    server: NamedDependency[ServerConfig],
) -> ASGIApp:
    """Texts, or lists of token ids, as vectors."""
    wanted = await decode_body(request, _DECODER)

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        client = Client(scope, receive, send, stall_timeout=server.stall_timeout)
        await client.serve(_answer(client, wanted, fleet))

    return answer


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingJob:
    """A request that has been found good, ready for the engine."""

    model: str
    engine: Engine
    inputs: list[list[int]]
    keep_alive: float | None


async def prepare(request: EmbeddingRequest, fleet: Fleet) -> EmbeddingJob:
    model = fleet.resolve(request.model)
    keep_alive = keep_alive_seconds(request.keep_alive)
    prompts = split_prompts(request.input, param="input", most=MAX_INPUTS)
    engine = await open_engine(fleet, model, "embed")
    _check_dimensions(engine.info, request.dimensions)
    most = most_tokens(engine.info, request.truncate_prompt_tokens)
    inputs = [await token_ids(engine, prompt, param="input", most=most) for prompt in prompts]
    return EmbeddingJob(model=model.name, engine=engine, inputs=inputs, keep_alive=keep_alive)


async def _answer(client: Client, request: EmbeddingRequest, fleet: Fleet) -> None:
    prepared = partial(prepare, request, fleet)
    client.record.model = fleet.resolve(request.model).name
    async with leased(fleet, client.record.model, prepared) as (job, lease):
        client.on_behind = lease.set_behind
        leased_at = time.monotonic()
        tokens = sum(map(len, job.inputs))
        client.record.placed(lease, tokens)
        vectors = await lease.embed(job.inputs, request.dimensions)
        client.record.stepped()
        headers = {**JSON, "server-timing": server_timing(lease, time.monotonic() - leased_at)}
        answer = EmbeddingList(
            data=await asyncio.to_thread(_encode, vectors, request.encoding_format == "base64"),
            model=job.model,
            usage=EmbeddingUsage(prompt_tokens=tokens, total_tokens=tokens),
        )
        await client.respond(200, msgspec.json.encode(answer), headers)


def _check_dimensions(info: ModelInfo, wanted: int | None) -> None:
    if wanted is None or wanted == info.embedding_size:
        return
    if not info.matryoshka:
        raise InvalidRequest(
            f"this model's vectors have {info.embedding_size} dimensions and cannot be cut to fewer",
            param="dimensions",
        )
    if wanted > (info.embedding_size or 0):
        raise InvalidRequest(f"dimensions is more than {info.embedding_size}", param="dimensions")


def _encode(vectors: Sequence[array[float]], base64: bool) -> list[Embedding]:
    """Encoded one by one and off the loop: a large batch has millions of digits."""
    return encoded_each(
        Embedding(index=index, embedding=b64encode(v).decode() if base64 else v.tolist())
        for index, v in enumerate(vectors)
    )
