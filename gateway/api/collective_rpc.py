"""vLLM's ``POST /collective_rpc``, of whose methods ``reload_weights`` alone is served."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec
from litestar import Request, post
from litestar.di import NamedDependency

from gateway.api.decode import decode_body
from gateway.api.keys import ADMIN
from gateway.api.naming import configured_name_or_all
from gateway.api.openapi.described import described
from gateway.api.schema.collective_rpc import RpcRequest, RpcResponse
from gateway.errors import InvalidRequest, WaitTimeout
from gateway.fleet import Fleet

METHOD: Final = "reload_weights"

_DECODER = msgspec.json.Decoder(RpcRequest)


@post(
    "/collective_rpc",
    status_code=200,
    opt=ADMIN
    | described(takes=RpcRequest, example={"method": "reload_weights", "model": "demo-a"}, fails=(409, 503)),
)
async def collective_rpc(request: Request[Any, Any, Any], fleet: NamedDependency[Fleet]) -> RpcResponse:
    """``reload_weights``: adopt a model's files as they are now; without ``model``, those of all models."""
    wanted = await decode_body(request, _DECODER)
    check(wanted)
    name = configured_name_or_all(request.scope, fleet, wanted.model)
    try:
        async with asyncio.timeout(wanted.timeout):
            await fleet.reload_weights(name)
    except TimeoutError:
        raise WaitTimeout(
            f"{METHOD} takes longer than {wanted.timeout:g} s, and goes on", retry_after=5.0
        ) from None
    return RpcResponse(results=[None])


def check(request: RpcRequest) -> None:
    if request.method != METHOD:
        raise InvalidRequest(f"method {request.method!r} is not served: {METHOD} is", param="method")
    for param in ("args", "kwargs"):
        if getattr(request, param):
            raise InvalidRequest(f"{METHOD} takes no {param}: it reads the model's own files", param=param)
