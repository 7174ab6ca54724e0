"""A place at the engine that a request was prepared for.

Token ids and grammars are of one engine. A new configuration may give the model another one while the
request waits for its place; then the request is prepared once more, and its client notices nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
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
    fleet: Fleet, prepared: P, prepare: Callable[[], Awaitable[P]]
) -> AsyncIterator[tuple[P, Lease]]:
    """The lease, and what it is for: ``prepared``, or what ``prepare`` has made since."""
    async with AsyncExitStack() as stack:
        granted = None
        while granted is None:
            lease = fleet.lease(prepared.model, engine=prepared.engine, keep_alive=prepared.keep_alive)
            try:
                granted = await stack.enter_async_context(lease)
            except ModelReplaced:
                prepared = await prepare()
        yield prepared, granted
