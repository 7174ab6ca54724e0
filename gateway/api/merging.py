"""Several prompts at once as one stream: the choices of all are numbered through, and the first failure ends
them all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Final

from engine import Delta, GenerateRequest
from gateway.fleet import Lease

_ARRIVED: Final = 64
"""Steps that may wait here. The engine lets more of them wait, but not without end."""


def generate_all(lease: Lease, requests: Sequence[GenerateRequest]) -> AsyncGenerator[list[Delta]]:
    return lease.generate(requests[0]) if len(requests) == 1 else _merged(lease, requests)


async def _merged(lease: Lease, requests: Sequence[GenerateRequest]) -> AsyncGenerator[list[Delta]]:
    arrived: asyncio.Queue[list[Delta] | Exception | None] = asyncio.Queue(_ARRIVED)
    requests = [replace(one, read_ahead=one.read_ahead // len(requests)) for one in requests]

    async def run(index: int, request: GenerateRequest) -> None:
        try:
            async with aclosing(lease.generate(request)) as steps:
                async for deltas in steps:
                    await arrived.put(
                        [replace(delta, index=index * request.n + delta.index) for delta in deltas]
                    )
            await arrived.put(None)
        except Exception as error:
            await arrived.put(error)

    runs = [asyncio.create_task(run(index, request)) for index, request in enumerate(requests)]
    try:
        running = len(runs)
        while running:
            item = await arrived.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                running -= 1
            else:
                yield item
    finally:
        for task in runs:
            task.cancel()
        await asyncio.gather(*runs, return_exceptions=True)
