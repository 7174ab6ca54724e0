"""Files that have been changed on purpose, and are to be a model's own from now on."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from gateway.errors import ApiError


@dataclass(slots=True, eq=False)
class Adoption:
    """Asked for by hand. No newcomer is admitted, and it is done as soon as nothing is in flight."""

    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def fail(self, error: ApiError) -> None:
        if not self.done.done():
            self.done.set_exception(error)
            self.done.exception()  # marks it as seen; whoever waited may have left

    def succeed(self) -> None:
        if not self.done.done():
            self.done.set_result(None)
