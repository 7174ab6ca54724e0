"""A model on its way to sleep, or at the end of its turn."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from engine import Level
from gateway.errors import ApiError
from gateway.fleet.state import Cause


@dataclass(slots=True, eq=False)
class Drain:
    """No newcomer is admitted. With a ``level``, the model goes to sleep as soon as nothing is in flight."""

    cause: Cause
    level: Level | None
    bytes_asleep: int = 0
    """What the model will hold on the device then."""
    keep_kv: bool | None = None
    """Not when nothing is in flight any more: what is gets suspended, with its KV or without."""
    committed: bool = False
    """The engine has been told; there is no way back."""
    done: asyncio.Future[Level] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def can_be_rescued(self) -> bool:
        return self.cause in ("idle", "deepen") and not self.committed

    def fail(self, error: ApiError) -> None:
        self.done.set_exception(error)
        self.done.exception()  # marks it as seen; often nobody waits
