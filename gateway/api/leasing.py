"""A request made ready for an engine, and its place there.

Token ids and grammars are of one engine. A new configuration may give the model another one while the
request waits for its place; then the request is prepared once more, and its client notices nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from time import monotonic
from typing import Protocol, TypeVar

from engine import Engine
from gateway.errors import ModelReplaced
from gateway.fleet import Fleet, Lease


class Prepared(Protocol):
    @property
    def model(self) -> str: ...

    @property
    def engine(self) -> Engine: ...

    @property
    def keep_alive(self) -> float | None: ...


P = TypeVar("P", bound=Prepared)


@asynccontextmanager
async def leased(
    fleet: Fleet, model: str, prepare: Callable[[], Awaitable[P]]
) -> AsyncIterator[tuple[P, Lease]]:
    """What ``prepare`` has made, and the lease for it. Where ``model`` had to be opened first, that is a part
    of its wake."""
    opening_seconds = 0.0
    async with AsyncExitStack() as stack:
        while True:
            was_open, began = fleet.is_open(model), monotonic()
            prepared = await prepare()
            if not was_open:
                opening_seconds += monotonic() - began
            lease = fleet.lease(prepared.model, engine=prepared.engine, keep_alive=prepared.keep_alive)
            with suppress(ModelReplaced):
                granted = await stack.enter_async_context(lease)
                break
        granted.wake_seconds += opening_seconds
        yield prepared, granted
